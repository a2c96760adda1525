"""grovectl, the command line of Grove Server: kubectl's habits, answered over gRPC.

Each command is one function in the module of its family (`reading`, `changing`, `waiting`, …). The program starts
fast because `program` loads only the module of the command that runs, and gRPC only when a command connects.
"""
