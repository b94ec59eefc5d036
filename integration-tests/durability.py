#!/usr/bin/env python3
"""A steady client and a backend that both remember what they sent or got, over OTLP/gRPC.

    durability.py load --port PORT --seconds S --out FILE [--workers N] [--first-worker K]
    durability.py backend --port PORT --out FILE

A batch has a number; its spans have the ids number * 256 + 0, 1, 2, … The client writes a line a
batch, `acked NUMBER` or `refused NUMBER CODE`, and tries none twice. The backend writes the id of
each span, before it answers. Needs: pip install opentelemetry-proto grpcio
"""

import argparse
import os
import threading
import time
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

SPANS = 25
PAUSE_SECONDS = 0.05
TIMEOUT_SECONDS = 5
PAYLOAD = "x" * 1000


class Notes:
    """Lines of a file, each in it once `write` is back: the process may be killed at any time."""

    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, lines):
        os.write(self.file, "".join(line + "\n" for line in lines).encode())


def request(number):
    request = trace_service_pb2.ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for index in range(SPANS):
        span = scope.spans.add(
            trace_id=(number + 1).to_bytes(16, "big"),
            span_id=(number * 256 + index).to_bytes(8, "big"),
            name="durable",
            kind=trace_pb2.Span.SPAN_KIND_SERVER,
            start_time_unix_nano=1_700_000_000_000_000_000,
            end_time_unix_nano=1_700_000_000_001_000_000,
        )
        span.attributes.add(key="payload").value.string_value = PAYLOAD
    return request


def work(worker, port, until, notes):
    options = [
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 200),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub = trace_service_pb2_grpc.TraceServiceStub(channel)
        number = worker << 32
        while time.monotonic() < until:
            number += 1
            try:
                stub.Export(request(number), timeout=TIMEOUT_SECONDS)
                notes.write([f"acked {number}"])
            except grpc.RpcError as error:
                notes.write([f"refused {number} {error.code().name}"])
            time.sleep(PAUSE_SECONDS)


def load(arguments):
    notes = Notes(arguments.out)
    until = time.monotonic() + arguments.seconds
    numbers = range(arguments.first_worker, arguments.first_worker + arguments.workers)
    workers = [
        threading.Thread(target=work, args=(number, arguments.port, until, notes))
        for number in numbers
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


class Backend(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, notes):
        self.notes = notes

    def Export(self, request, context):  # noqa: N802 (the name is the protocol's)
        ids = [
            str(int.from_bytes(span.span_id, "big"))
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        self.notes.write(ids)
        return trace_service_pb2.ExportTraceServiceResponse()


def serve(arguments):
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=options)
    backend = Backend(Notes(arguments.out))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(backend, server)
    server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    server.start()
    server.wait_for_termination()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("load", load), ("backend", serve)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--port", type=int, required=True)
        command.add_argument("--out", required=True)
        if name == "load":
            command.add_argument("--seconds", type=float, required=True)
            command.add_argument("--workers", type=int, default=4)
            command.add_argument("--first-worker", type=int, default=0)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
