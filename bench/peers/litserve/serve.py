"""LitServe with its fast queue. Its batching is off: it was slower here."""

import os

import litserve
import session


class Model(litserve.LitAPI):
    def setup(self, device):
        self.model = session.model()

    def decode_request(self, request):
        return self.model.read(request)

    def predict(self, item):
        return self.model.run_one(item)

    def encode_response(self, output):
        return {"y": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Model(), accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), num_api_servers=1, generate_client_file=False, log_level="warning", access_log=False)
