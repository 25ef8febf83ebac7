"""The wires of a live session: market data on Redis, reports on NATS, orders by gRPC. See protos/ for the messages."""
