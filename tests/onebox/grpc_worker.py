"""A gRPC server with the standard health service for probes; POD_IP says where, UNHEALTHY when it is sick."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # no stubs installed


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # no stubs installed
    """Serves while the file UNHEALTHY is not there."""

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Answer."""
        del request, context
        is_sick = Path(os.environ["UNHEALTHY"]).exists()
        status = health_pb2.HealthCheckResponse
        return status(status=status.NOT_SERVING if is_sick else status.SERVING)


def main() -> None:
    """Serve until ended."""
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    server.add_insecure_port(f"{os.environ['POD_IP']}:8000")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
