"""How to ask: gRPC services, conversions, interceptors and errors."""
