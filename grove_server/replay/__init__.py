"""grove-replay: nodes and pods of a real cluster in, what placement would do with manifests out; no server at hand."""
