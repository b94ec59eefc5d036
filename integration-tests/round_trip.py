#!/usr/bin/env python3
"""Sends a span with every field set through a collector, and looks at what comes out.

    round_trip.py GRPC_PORT HTTP_PORT

Both ends are not ours: the SDK's exporters send to these ports of the collector, servers made
with opentelemetry-proto receive what it sends on. Prints {"grpc": port, "http": port} of those
servers, waits for a line on standard input (the collector is ready), sends over both transports,
and prints a line for each of the four ways: {"way": ..., "same": true} or what differs. The
status is 0 when nothing does. Needs: pip install -r requirements.txt
"""

import gzip
import json
import logging
import queue
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc
from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

ARRIVED = {"grpc": queue.Queue(), "http": queue.Queue()}
LIMIT_S = 20


class TraceService(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):  # noqa: N802 (the name is the protocol's)
        ARRIVED["grpc"].put(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):  # noqa: N802
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        ARRIVED["http"].put(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def serve():
    grpc_server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(TraceService(), grpc_server)
    grpc_port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    print(json.dumps({"grpc": grpc_port, "http": http_server.server_port}), flush=True)
    return grpc_server  # Stops when nobody has it any more.


class Keeps(SpanExporter):
    """What the SDK made, before any exporter saw it."""

    def __init__(self):
        self.spans = []

    def export(self, spans):
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS


def context(number, state=""):
    state = TraceState.from_header([state] if state else [])
    return SpanContext(number, number, True, TraceFlags(TraceFlags.SAMPLED), state)


def span_with_every_field():
    keeps = Keeps()
    resource = Resource(
        {"service.name": "round-trip", "ints": [1, -2], "é": "ü"}, "https://example.org/resource"
    )
    # Limits, so that things are dropped and counted.
    limits = SpanLimits(
        max_span_attributes=8,
        max_events=2,
        max_links=2,
        max_event_attributes=2,
        max_link_attributes=2,
    )
    provider = TracerProvider(resource=resource, span_limits=limits)
    provider.add_span_processor(SimpleSpanProcessor(keeps))
    tracer = provider.get_tracer("scope", "1.2", "https://example.org/scope", {"scope": True})
    parent = trace.set_span_in_context(trace.NonRecordingSpan(context(0xABC, "a=b,c=d")))
    many = {"bool": False, "int": -(2**63), "double": 0.1}
    span = tracer.start_span(
        "GET /\u00e9",
        parent,
        SpanKind.CONSUMER,
        links=[Link(context(number, "l=1"), many) for number in range(1, 5)],
    )
    span.set_attributes(many)
    span.set_attributes({"text": "\u0001 \U0001f980", "bytes": b"\x00\xff", "empty": ""})
    span.set_attributes({"bools": [True, False], "texts": ["", "x"], "doubles": [1.5]})
    for number in range(4):
        span.add_event(f"event {number}", many, 1_700_000_000_000_000_000 + number)
    span.set_status(Status(StatusCode.ERROR, "went wrong"))
    span.end()
    return keeps.spans


def differences(way, sent, arrived):
    if sent == arrived:
        return {"way": way, "same": True}
    return {"way": way, "same": False, "sent": str(sent), "arrived": str(arrived)}


def main():
    to_grpc, to_http = sys.argv[1:3]
    _server = serve()
    sys.stdin.readline()
    logging.disable(logging.WARNING)  # It warns of what is dropped, which is wanted here.
    spans = span_with_every_field()
    wanted = encode_spans(spans)
    for field in ("attributes", "events", "links"):
        assert getattr(wanted.resource_spans[0].scope_spans[0].spans[0], field), field
    senders = {
        "grpc": over_grpc.OTLPSpanExporter(f"http://127.0.0.1:{to_grpc}", insecure=True),
        "http": over_http.OTLPSpanExporter(f"http://127.0.0.1:{to_http}/v1/traces"),
    }
    failed = False
    for sender, exporter in senders.items():
        if exporter.export(spans) != SpanExportResult.SUCCESS:
            print(json.dumps({"way": sender, "same": False, "sent": "not taken"}), flush=True)
            failed = True
            continue
        for receiver, arrived in ARRIVED.items():
            result = differences(f"{sender} to {receiver}", wanted, arrived.get(timeout=LIMIT_S))
            failed |= not result["same"]
            print(json.dumps(result, ensure_ascii=False), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
