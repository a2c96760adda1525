"""The version of the client distribution; it stands nowhere else.

It is here and not in `grove_client`, because importing that package brings gRPC along.
"""

__version__ = "0.1.0"
