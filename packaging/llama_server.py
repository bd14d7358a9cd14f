"""llama.cpp's own HTTP server out of the xllamacpp wheel, under llama-server's name and most used flags."""

import argparse
import signal
import sys

import xllamacpp

_STOPS = {signal.SIGTERM, signal.SIGINT}


def main() -> int:
    parser = argparse.ArgumentParser(prog="llama-server", allow_abbrev=False)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--alias")
    parser.add_argument("-c", "--ctx-size", type=int, default=2048)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--metrics", action="store_true")
    arguments = parser.parse_args()
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.port = (
        arguments.model,
        arguments.ctx_size,
        arguments.port,
    )
    if hasattr(parameters, "hostnames"):
        parameters.hostnames = [arguments.host]
    else:  # before 2026.10
        parameters.hostname = arguments.host
    parameters.fit_params = False  # there is no GPU whose memory it must fit: this saves 40 % of a load
    parameters.endpoint_metrics, parameters.cpuparams.n_threads = arguments.metrics, arguments.threads
    if arguments.alias:
        parameters.model_alias = {arguments.alias}
    # A handler and pause() would lose a signal that comes between them. All threads inherit the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    server = xllamacpp.Server(
        parameters
    )  # loads, binds, serves from threads of its own; raises when it cannot
    print("listening on", server.listening_address, flush=True)
    signal.sigwait(_STOPS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
