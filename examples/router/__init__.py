"""A router as small as one can be that loses no request: prefill, then decode, in turn; it leaves what drains."""
