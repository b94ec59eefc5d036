#!/usr/bin/env python3
"""An OTLP receiver that is not ours: decodes with opentelemetry-proto, serves with grpcio.

    otlp_receiver.py [--grpc PORT] [--http PORT]

Prints one JSON object a line: first {"grpc": port, "http": port}, then one a span with
ids in hex, parent, kind, name, start, end, status, attributes, scope and resource.
Port 0 takes any free one. Needs: pip install opentelemetry-proto grpcio
"""

import argparse
import gzip
import json
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

PRINTING = threading.Lock()


def say(record):
    with PRINTING:
        print(json.dumps(record, ensure_ascii=False), flush=True)


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [value(item) for item in any_value.array_value.values]
    if kind == "kvlist_value":
        return attributes(any_value.kvlist_value.values)
    if kind == "bytes_value":
        return {"bytes": any_value.bytes_value.hex()}
    return getattr(any_value, kind)


def kind(number):
    names = trace_pb2.Span.SpanKind.DESCRIPTOR.values_by_number
    return names[number].name.removeprefix("SPAN_KIND_").lower() if number in names else number


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def say_spans(request, transport, headers):
    for resource_spans in request.resource_spans:
        resource = attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                say({
                    "trace_id": span.trace_id.hex(),
                    "span_id": span.span_id.hex(),
                    "parent_span_id": span.parent_span_id.hex(),
                    "kind": kind(span.kind),
                    "name": span.name,
                    "start_unix_ns": span.start_time_unix_nano,
                    "end_unix_ns": span.end_time_unix_nano,
                    "flags": span.flags,
                    "trace_state": span.trace_state,
                    "status": {"code": span.status.code, "message": span.status.message},
                    "attributes": attributes(span.attributes),
                    "scope": {"name": scope_spans.scope.name, "version": scope_spans.scope.version},
                    "schema_url": scope_spans.schema_url,
                    "resource": resource,
                    "transport": transport,
                    "user_agent": headers.get("user-agent", ""),
                })


class TraceService(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):  # noqa: N802 (the name is the protocol's)
        say_spans(request, "grpc", dict(context.invocation_metadata()))
        return trace_service_pb2.ExportTraceServiceResponse()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):  # noqa: N802
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path != "/v1/traces":
            return self.answer(404, b"")
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = trace_service_pb2.ExportTraceServiceRequest()
        try:
            request.ParseFromString(body)
        except Exception as error:  # protobuf raises its own kinds
            print(f"undecodable request: {error}", file=sys.stderr)
            return self.answer(400, b"")
        headers = {key.lower(): text for key, text in self.headers.items()}
        say_spans(request, "http", headers)
        self.answer(200, trace_service_pb2.ExportTraceServiceResponse().SerializeToString())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grpc", type=int, default=0, metavar="PORT")
    parser.add_argument("--http", type=int, default=0, metavar="PORT")
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args()

    options = [("grpc.max_receive_message_length", 64 << 20)]
    grpc_server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=options)
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(TraceService(), grpc_server)
    grpc_port = grpc_server.add_insecure_port(f"{arguments.host}:{arguments.grpc}")
    grpc_server.start()
    http_server = ThreadingHTTPServer((arguments.host, arguments.http), Handler)
    say({"grpc": grpc_port, "http": http_server.server_port})
    try:
        http_server.serve_forever()
    except KeyboardInterrupt:
        pass
    grpc_server.stop(grace=1)


if __name__ == "__main__":
    main()
