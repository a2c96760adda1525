"""What is measured: Prometheus, the pods' own pages, and routers. Unknown is never zero."""
