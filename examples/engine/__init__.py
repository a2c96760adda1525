"""An inference engine without a model: it takes the time that one would take, and says of itself what vLLM says."""
