"""A Model that is reached by gRPC: a GRPCRoute of a real gateway, and MLServer behind it."""

import io

import grpc
import joblib
import numpy
from sklearn.linear_model import LogisticRegression

from tests.e2e.lib.space import Space, eventually


def a_small_classifier() -> bytes:
    """A model file as scikit-learn writes it."""
    features = numpy.array([[0.0, 0.0], [1.0, 1.0]])
    file = io.BytesIO()
    joblib.dump(LogisticRegression().fit(features, [0, 1]), file)
    return file.getvalue()


def ready(gateway: str, hostname: str, model: str) -> bool:
    """ModelReady of the Open Inference Protocol, through the gateway. The messages are too small to need a compiler."""
    name = model.encode()
    with grpc.insecure_channel(gateway, options=[("grpc.default_authority", hostname)]) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelReady")
        return bool(call(b"\x0a" + bytes([len(name)]) + name, timeout=5) == b"\x08\x01")


def test_a_model_answers_by_grpc_through_the_gateway(space: Space) -> None:
    uri = space.upload("grpc/model.joblib", a_small_classifier())
    model = space.model("plain-1", "plain", resources={"requests": {"cpu": "50m", "memory": "256Mi"}})
    model["spec"]["endpoint"]["protocol"] = "GRPC"
    space.apply(space.version("plain-1", "plain", uri=uri, format_name="sklearn"), model)
    space.wait_ready("plain-1", "plain")

    def answered() -> bool:
        try:
            return ready(space.world.cluster.gateway_address, f"plain.{space.name}.example.com", "plain")
        except grpc.RpcError as error:
            raise AssertionError(f"{error.code()}: {error.details()}") from error

    eventually(answered, "ModelReady by gRPC", timeout=30)
