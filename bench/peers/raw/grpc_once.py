"""Sends the ModelInferRequest on stdin once and prints the numbers of the answer's first raw output: `grpc_once.py PORT`."""

import array
import json
import sys

import grpc

channel = grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}")
answer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(sys.stdin.buffer.read(), timeout=5)


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


at = 0
while at < len(answer):
    key, at = varint(answer, at)
    size, at = varint(answer, at)  # every field of the answer that is set here is length-delimited
    if key >> 3 == 6:  # raw_output_contents
        print(json.dumps(list(array.array("f", answer[at : at + size]))))
    at += size
