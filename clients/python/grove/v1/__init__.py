"""Generated messages and stubs of the package `grove.v1`; made from proto/ by `make generate`.

Import the modules themselves, for example `from grove.v1 import pod_gang_pb2, pod_gang_pb2_grpc`.
"""
