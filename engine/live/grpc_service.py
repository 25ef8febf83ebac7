"""The execution service on its wire: gRPC around `Service`.

Law: calls are answered one after another on one loop, so that what a reply says is true when it is said.
"""

import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc

from engine.errors import ConfigError
from engine.live.service import CALLS, SERVICE, Refused, Service
from engine.live.tls import Tls
from engine.live.wire import execution_pb2 as pb

LOG = logging.getLogger("tandem.live")
OPTIONS = [("grpc.so_reuseport", 0), ("grpc.keepalive_time_ms", 5000), ("grpc.keepalive_timeout_ms", 2000),
           ("grpc.http2.min_recv_ping_interval_without_data_ms", 200), ("grpc.http2.max_ping_strikes", 0),
           ("grpc.keepalive_permit_without_calls", 1)]  # fmt: skip


class GrpcService:
    """Serves a `Service` at an address such as 127.0.0.1:50051. With `tls.ca` clients must show a certificate of it."""

    def __init__(self, service: Service, address: str, tls: Tls | None = None) -> None:
        self.service, self.address, self.port = service, address, 0
        self._tls, self._server = tls, None  # type: tuple[Tls | None, Any]

    async def start(self) -> None:
        """Listen. Raises ConfigError for an address that cannot be had."""
        server = self._server = grpc.aio.server(options=OPTIONS)
        handlers = {name: self._unary(name) for name in CALLS}
        handlers["Stream"] = grpc.stream_stream_rpc_method_handler(
            self._stream, pb.StreamRequest.FromString, pb.StreamReply.SerializeToString)  # fmt: skip
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            if self._tls is None:
                self.port = server.add_insecure_port(self.address)
            else:
                if not (self._tls.cert and self._tls.key):
                    raise ConfigError("execution.tls: a service needs cert and key.")
                credentials = grpc.ssl_server_credentials([(self._tls.key, self._tls.cert)], self._tls.ca,
                                                          self._tls.ca is not None)  # fmt: skip
                self.port = server.add_secure_port(self.address, credentials)
        except RuntimeError as error:
            raise ConfigError(f"address {self.address} cannot be had ({error}); end the program that uses it, "
                              "or choose another.") from error  # fmt: skip
        await server.start()

    async def stop(self) -> None:
        """End all calls."""
        if self._server is not None:
            await self._server.stop(grace=0.2)

    def _unary(self, name: str) -> Any:
        kind, answer = CALLS[name]

        async def serve(request: Any, context: Any) -> Any:
            try:
                return answer(self.service, request)
            except Refused as error:
                await self._refuse(error, context, getattr(request, "batch", 0))

        return grpc.unary_unary_rpc_method_handler(serve, kind.FromString, lambda reply: reply.SerializeToString())

    async def _refuse(self, error: Refused, context: Any, batch: int) -> None:
        LOG.warning("execution service: refused: %s", error)
        code = grpc.StatusCode.FAILED_PRECONDITION if error.fenced else grpc.StatusCode.INVALID_ARGUMENT
        await context.abort(code, str(error), (("batch", str(batch)),))

    async def _stream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if request.WhichOneof("body") == "batch":
                try:
                    reply = pb.StreamReply(acks=self.service.submit(request.batch))
                except Refused as error:
                    await self._refuse(error, context, request.batch.batch)
                    return
                yield reply
            else:
                yield pb.StreamReply(heartbeat=request.heartbeat)
