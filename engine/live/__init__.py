"""The wires of a live session: market data on Redis, reports on NATS, orders by gRPC. See protos/ for the messages."""

import os

# gRPC's EventEngine hands each message over through more threads than its older poller: a round trip on a stream takes
# 0.26 ms without it and 0.38 with it. Whoever sets the variable himself decides.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
