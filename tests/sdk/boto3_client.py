"""boto3's `apigatewaymanagementapi` client against a real gateway: calls, and errors raised as their own classes."""

import base64
import contextlib
import datetime
import json
import os
import pathlib

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials
import botocore.exceptions
from websockets.sync.client import connect

from gateway import Gateway, main, test

LARGEST = 128 * 1024
# Text that compression hardly makes smaller.
NOISE = base64.b64encode(os.urandom(LARGEST * 3 // 4))


def client(gateway, path="chat/dev", key="AKIDEXAMPLE", secret="not-a-secret", token=None, region="eu-west-1"):
    return boto3.client(
        "apigatewaymanagementapi",
        endpoint_url=f"http://{gateway.public}/{path}",
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=botocore.config.Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=10),
    )


def chat(gateway):
    return connect(f"ws://{gateway.public}/chat/dev", open_timeout=10, user_agent_header="sdk-test/1.0")


def connection_id(socket):
    socket.send(json.dumps({"action": "whoami"}))
    return json.loads(socket.recv(timeout=10))["connectionId"]


@contextlib.contextmanager
def raises(kind, status):
    """The SDK must raise this very class, not just any error with the status."""
    try:
        yield
    except kind as error:
        assert type(error) is kind, type(error)
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status, error.response
        assert error.response["ResponseMetadata"].get("RequestId"), error.response
    else:
        raise AssertionError(f"{kind.__name__} was not raised")


# checklist: 184, 196
@test(184, 196)
def a_post_reaches_the_client(gateway):
    with chat(gateway) as socket:
        id = connection_id(socket)
        # Every id ends in `=`, which the SDK sends as %3D.
        assert id.endswith("=")
        answer = client(gateway).post_to_connection(ConnectionId=id, Data=b'{"hello": "w\xc3\xb6rld"}')
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
        assert socket.recv(timeout=10) == '{"hello": "wörld"}'
        for n in range(100):
            client_of_all.post_to_connection(ConnectionId=id, Data=str(n).encode())
        assert [socket.recv(timeout=10) for _ in range(100)] == [str(n) for n in range(100)]


# checklist: 185, 186
@test(185, 186)
def a_get_tells_about_the_connection(gateway):
    with chat(gateway) as socket:
        told = client(gateway).get_connection(ConnectionId=connection_id(socket))
        assert told["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "sdk-test/1.0"}, told
        assert told["ConnectedAt"] <= told["LastActiveAt"], told
        assert (told["LastActiveAt"] - told["ConnectedAt"]).total_seconds() < 10, told


# checklist: 191, 192
@test(191, 192)
def a_delete_closes_the_client(gateway):
    with chat(gateway) as socket:
        id = connection_id(socket)
        api = client(gateway)
        answer = api.delete_connection(ConnectionId=id)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
        try:
            socket.recv(timeout=10)
            raise AssertionError("still open")
        except Exception as closed:
            frame = closed.rcvd
            assert (frame.code, frame.reason) == (1000, "Connection Closed Normally"), frame
        with raises(api.exceptions.GoneException, 410):
            api.delete_connection(ConnectionId=id)


# checklist: 212
@test(212)
def the_four_errors_are_raised_as_their_own_classes(gateway):
    api = client(gateway)
    with chat(gateway) as socket:
        gone = connection_id(socket)
    for call in (api.get_connection, api.delete_connection, lambda **a: api.post_to_connection(Data=b"x", **a)):
        with raises(api.exceptions.GoneException, 410):
            call(ConnectionId=gone)
    with chat(gateway) as socket:
        id = connection_id(socket)
        api.post_to_connection(ConnectionId=id, Data=b"x" * LARGEST)
        assert socket.recv(timeout=10) == "x" * LARGEST
        with raises(api.exceptions.PayloadTooLargeException, 413):
            api.post_to_connection(ConnectionId=id, Data=b"x" * (LARGEST + 1))
        nowhere = client(gateway, "chat/nowhere")
        for call in (nowhere.get_connection, nowhere.delete_connection):
            with raises(nowhere.exceptions.ForbiddenException, 403):
                call(ConnectionId=id)
        with raises(nowhere.exceptions.ForbiddenException, 403):
            nowhere.post_to_connection(ConnectionId=id, Data=b"x")
        # Nobody calls recv: the client's buffers fill, then the sockets, then the outbox.
        with raises(api.exceptions.LimitExceededException, 429):
            for _ in range(1_000):
                api.post_to_connection(ConnectionId=id, Data=NOISE)
        # Reading makes room again, and everything that was taken comes.
        while True:
            assert socket.recv(timeout=10) == NOISE.decode()
            try:
                api.post_to_connection(ConnectionId=id, Data=b"after all")
                break
            except api.exceptions.LimitExceededException:
                pass
        while (text := socket.recv(timeout=10)) != "after all":
            assert text == NOISE.decode()


# checklist: 195
@test(195)
def a_malformed_id_is_a_bad_request(gateway):
    api = client(gateway)
    try:
        api.get_connection(ConnectionId="WDGT8fY4joECJrQ=test")
        raise AssertionError("accepted")
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "BadRequestException", error.response
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400, error.response


ANN = {"key": "AKIAANN", "secret": "secret-of-ann-0001", "region": "us-east-1"}


@contextlib.contextmanager
def refused(code):
    """What the SDK makes of an error type that its service model does not name."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == code, error.response
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 403, error.response
        refused.message = error.response["Error"]["Message"]
    else:
        raise AssertionError(f"{code} was not raised")


# checklist: 184, 191, 214
@test(184, 191, 214)
def signed_calls_do_what_their_policies_allow(_):
    with signed as gateway, chat(gateway) as socket:
        id = connection_id(socket)
        api = client(gateway, **ANN)
        api.post_to_connection(ConnectionId=id, Data=b"signed")
        assert socket.recv(timeout=10) == "signed"
        assert api.get_connection(ConnectionId=id)["Identity"]["SourceIp"] == "127.0.0.1"
        worker = client(
            gateway, key="ASIANOW", secret="secret-of-role-001", token="token/of+role=", region="us-east-1"
        )
        worker.post_to_connection(ConnectionId=id, Data=b"in a role")
        assert socket.recv(timeout=10) == "in a role"
        worker.delete_connection(ConnectionId=id)
        with raises(api.exceptions.GoneException, 410):
            api.get_connection(ConnectionId=id)


# checklist: 200, 201, 202
@test(200, 201, 202)
def a_wrong_key_secret_clock_or_region_is_refused(_):
    with signed as gateway, chat(gateway) as socket:
        id = connection_id(socket)

        def get(**changes):
            client(gateway, **{**ANN, **changes}).get_connection(ConnectionId=id)

        get()
        with refused("UnrecognizedClientException"):
            get(key="AKIANOBODY")
        with refused("InvalidSignatureException"):
            get(secret="secret-of-another-1")
        assert refused.message.startswith("The request signature we calculated does not match"), refused.message
        with refused("InvalidSignatureException"):
            get(region="eu-west-9")
        assert refused.message == "Credential should be scoped to a valid region, not 'eu-west-9'. ", refused.message
        with refused("UnrecognizedClientException"):
            get(token="a-token-that-nobody-gave")
        with refused("ExpiredTokenException"):
            get(key="ASIAPAST", secret="secret-of-role-002", token="token-of-past")
        config = botocore.config.Config(signature_version=botocore.UNSIGNED, retries={"total_max_attempts": 1})
        unsigned = boto3.client(
            "apigatewaymanagementapi", endpoint_url=f"http://{gateway.public}/chat/dev", region_name="us-east-1",
            config=config,
        )
        with refused("MissingAuthenticationTokenException"):
            unsigned.get_connection(ConnectionId=id)
        late = client(gateway, **ANN)

        def six_minutes_ago(request, **_):
            then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=6)
            stamp = then.strftime("%Y%m%dT%H%M%SZ")
            signer = botocore.auth.SigV4Auth(
                botocore.credentials.Credentials(ANN["key"], ANN["secret"]), "execute-api", "us-east-1"
            )
            signable = botocore.awsrequest.AWSRequest(request.method, request.url)
            signable.context["timestamp"] = stamp
            signable.headers["X-Amz-Date"] = stamp
            text = signer.string_to_sign(signable, signer.canonical_request(signable))
            signer._inject_signature_to_request(signable, signer.signature(text, signable))
            for name in ("Authorization", "X-Amz-Date"):
                del request.headers[name]
                request.headers[name] = signable.headers[name]

        late.meta.events.register("before-send", six_minutes_ago)
        with refused("InvalidSignatureException"):
            late.get_connection(ConnectionId=id)
        assert refused.message.startswith("Signature expired: "), refused.message


# checklist: 203, 204, 205
@test(203, 204, 205)
def what_no_policy_allows_is_denied(_):
    with signed as gateway, chat(gateway) as socket:
        id = connection_id(socket)
        poster = client(gateway, key="AKIAPOST", secret="secret-of-post-001", region="us-east-1")
        poster.post_to_connection(ConnectionId=id, Data=b"may post")
        assert socket.recv(timeout=10) == "may post"
        with refused("AccessDeniedException"):
            poster.delete_connection(ConnectionId=id)
        assert refused.message == (
            "User: arn:aws:iam::123456789012:user/post is not authorized to perform: execute-api:ManageConnections on "
            "resource: arn:aws:execute-api:us-east-1:********9012:chat/dev/DELETE/@connections/{connectionId}"
        ), refused.message
        invoker = client(gateway, key="AKIAINVOKE", secret="secret-of-invoke-1", region="us-east-1")
        with refused("AccessDeniedException"):
            invoker.post_to_connection(ConnectionId=id, Data=b"may not")


if __name__ == "__main__":
    signed = Gateway(pathlib.Path(__file__).with_name("iam.yaml"))
    with Gateway() as running:
        client_of_all = client(running)
        main("sdk-python", running)
