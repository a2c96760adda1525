"""The launcher program: what forks, keeps and ends the processes of containers, outside the server's process.

A program of its own because a server with threads, an event loop and hundreds of megabytes is a poor thing to fork. It
is single-threaded and small, and imports the standard library and this package alone: a test looks at that. It is
started as ``python -I -S -X utf8 program/__main__.py DATA_DIR FD``, where FD is a SOCK_SEQPACKET socket to the server.
"""
