"""gRPC's bookings as Debian's python3-grpcio asks for them."""
import sys

import grpc

import harness
from test_gateway_bookings import M, SERVICE

sys.path.insert(1, str(harness.ROOT / "tests" / "unit" / "rpc"))  # frames.py

PATH = f"/{SERVICE}/"
KINDS = {"CreateBooking": "CreateBookingRequest", "GetBooking": "GetBookingRequest", "CancelBooking": "CancelBookingRequest"}
STATUS = ("UNSPECIFIED", "PENDING", "CONFIRMED", "CANCELLED", "EXPIRED")


class Server(harness.Server):
    """A payflow with an address for gRPC."""

    def __init__(self, data, env=None, **kw):
        self.grpc_port = harness.free_port()
        super().__init__(data, env={"GRPC_LISTEN": f"127.0.0.1:{self.grpc_port}", **(env or {})}, **kw)

    def calls(self, **metadata):
        return Calls(f"127.0.0.1:{self.grpc_port}", **metadata)

    def metric(self, name):
        """The sum of all series whose line begins so."""
        lines = self.anon.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


class Refused(Exception):
    def __init__(self, error):
        super().__init__(f"{error.code()} {error.details()}")
        trailers = dict(error.trailing_metadata() or ())
        self.code, self.text = error.code().name, error.details()
        self.problem = trailers.get("problem-type", "").removeprefix("/problems/")


class Calls:
    """A channel with these metadata on each call."""

    def __init__(self, target, credentials=None, **metadata):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self.channel = (grpc.secure_channel(target, credentials, options) if credentials
                        else grpc.insecure_channel(target, options))
        self.metadata = [(k.replace("_", "-"), v) for k, v in metadata.items()]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.channel.close()

    def stub(self, name):
        return self.channel.unary_unary(
            PATH + name, request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
            response_deserializer=M["Booking"].FromString)

    def __call__(self, name, request=None, metadata=(), timeout=20, **fields):
        """(booking, trailers), or Refused. request: a message or bytes; else one of these fields."""
        try:
            answer, call = self.stub(name).with_call(request if request is not None else M[KINDS[name]](**fields),
                                                     timeout=timeout, metadata=[*self.metadata, *metadata])
        except grpc.RpcError as error:
            raise Refused(error) from None
        return answer, dict(call.trailing_metadata() or ())

    def create(self, event, user_id="", count=1, **more):
        return self("CreateBooking", user_id=user_id, event_id=event if isinstance(event, str) else event["id"],
                    ticket_count=count, **more)[0]

    def get(self, booking_id):
        return self("GetBooking", booking_id=booking_id)[0]

    def cancel(self, booking_id, **more):
        return self("CancelBooking", booking_id=booking_id, **more)[0]
