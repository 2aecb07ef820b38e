// The JavaScript SDK's management client against a real gateway: calls, and errors raised as their own classes.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { join } from "node:path";

import { fromTools, main, root, soon, startGateway, test } from "./gateway.mjs";

const sdk = fromTools("@aws-sdk/client-apigatewaymanagementapi");
const WebSocket = fromTools("ws");

const LARGEST = 128 * 1024;
// Text that compression hardly makes smaller.
const NOISE = randomBytes((LARGEST * 3) / 4).toString("base64");

function client(gateway, path = "chat/dev", more = {}) {
  return new sdk.ApiGatewayManagementApiClient({
    endpoint: `http://${gateway.public}/${path}`,
    region: "eu-west-1",
    credentials: { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "not-a-secret" },
    maxAttempts: 1,
    ...more,
  });
}

async function chat(gateway) {
  const socket = new WebSocket(`ws://${gateway.public}/chat/dev`, { headers: { "User-Agent": "sdk-test/1.0" } });
  await soon("a handshake", once(socket, "open"));
  return socket;
}

async function next(socket) {
  const [data, isBinary] = await soon("a message", once(socket, "message"));
  assert.equal(isBinary, false);
  return data.toString();
}

async function idOf(socket) {
  socket.send(JSON.stringify({ action: "whoami" }));
  return JSON.parse(await next(socket)).connectionId;
}

const post = (api, ConnectionId, Data) => api.send(new sdk.PostToConnectionCommand({ ConnectionId, Data }));
const get = (api, ConnectionId) => api.send(new sdk.GetConnectionCommand({ ConnectionId }));
const remove = (api, ConnectionId) => api.send(new sdk.DeleteConnectionCommand({ ConnectionId }));

/** The SDK must raise this very class, not just any error with the status. */
async function raises(kind, status, promise) {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof kind, `${error.name} is not ${kind.name}: ${error.message}`);
    assert.equal(error.$metadata.httpStatusCode, status);
    assert.ok(error.$metadata.requestId);
    return true;
  });
}

// checklist: 184, 196
test("a_post_reaches_the_client", [184, 196], async (gateway) => {
  const socket = await chat(gateway);
  const id = await idOf(socket);
  // Every id ends in `=`, which the SDK sends as %3D.
  assert.ok(id.endsWith("="));
  const api = client(gateway);
  const came = next(socket);
  const answer = await post(api, id, Buffer.from('{"hello": "wörld"}'));
  assert.equal(answer.$metadata.httpStatusCode, 200);
  assert.equal(await came, '{"hello": "wörld"}');
  socket.terminate();
});

// checklist: 185, 186
test("a_get_tells_about_the_connection", [185, 186], async (gateway) => {
  const socket = await chat(gateway);
  const told = await get(client(gateway), await idOf(socket));
  assert.deepEqual(told.Identity, { SourceIp: "127.0.0.1", UserAgent: "sdk-test/1.0" });
  assert.ok(told.ConnectedAt instanceof Date && told.ConnectedAt <= told.LastActiveAt);
  socket.terminate();
});

// checklist: 191, 192
test("a_delete_closes_the_client", [191, 192], async (gateway) => {
  const socket = await chat(gateway);
  const id = await idOf(socket);
  const api = client(gateway);
  const closed = once(socket, "close");
  assert.equal((await remove(api, id)).$metadata.httpStatusCode, 204);
  const [code, reason] = await soon("the close", closed);
  assert.deepEqual([code, reason.toString()], [1000, "Connection Closed Normally"]);
  await raises(sdk.GoneException, 410, remove(api, id));
});

// checklist: 212
test("the_four_errors_are_raised_as_their_own_classes", [212], async (gateway) => {
  const api = client(gateway);
  const leaver = await chat(gateway);
  const gone = await idOf(leaver);
  leaver.close();
  await soon("the close", once(leaver, "close"));
  await raises(sdk.GoneException, 410, post(api, gone, "x"));
  await raises(sdk.GoneException, 410, get(api, gone));
  await raises(sdk.GoneException, 410, remove(api, gone));

  const socket = await chat(gateway);
  const id = await idOf(socket);
  await raises(sdk.PayloadTooLargeException, 413, post(api, id, Buffer.alloc(LARGEST + 1, "x")));
  const nowhere = client(gateway, "chat/nowhere");
  await raises(sdk.ForbiddenException, 403, post(nowhere, id, "x"));
  await raises(sdk.ForbiddenException, 403, get(nowhere, id));
  await raises(sdk.ForbiddenException, 403, remove(nowhere, id));

  // A client that never reads: the sockets fill, then the outbox.
  socket.pause();
  const flood = async () => {
    for (let n = 0; n < 1_000; n += 1) await post(api, id, NOISE);
  };
  await raises(sdk.LimitExceededException, 429, flood());
  socket.terminate();
});

const signer = (accessKeyId, secretAccessKey, more = {}) => ({
  region: "us-east-1",
  credentials: { accessKeyId, secretAccessKey },
  ...more,
});

/** What the SDK makes of an error type that its service model does not name. */
async function refused(name, start, promise) {
  await assert.rejects(promise, (error) => {
    assert.equal(error.name, name);
    assert.equal(error.$metadata.httpStatusCode, 403);
    assert.ok(error.message.startsWith(start), error.message);
    return true;
  });
}

// checklist: 184, 203, 205
test("signed_calls_do_what_their_policies_allow", [184, 203, 205], async (_, signed) => {
  const socket = await chat(signed);
  const id = await idOf(socket);
  const ann = client(signed, "chat/dev", signer("AKIAANN", "secret-of-ann-0001"));
  let came = next(socket);
  await post(ann, id, "signed");
  assert.equal(await came, "signed");
  assert.equal((await get(ann, id)).Identity.SourceIp, "127.0.0.1");
  const poster = client(signed, "chat/dev", signer("AKIAPOST", "secret-of-post-001"));
  came = next(socket);
  await post(poster, id, "may post");
  assert.equal(await came, "may post");
  await assert.rejects(remove(poster, id), (error) => {
    assert.equal(error.name, "AccessDeniedException");
    const text = error.message || error.Message;
    assert.ok(text.endsWith(":chat/dev/DELETE/@connections/{connectionId}"), text);
    return true;
  });
  const closed = once(socket, "close");
  assert.equal((await remove(ann, id)).$metadata.httpStatusCode, 204);
  await soon("the close", closed);
  await raises(sdk.GoneException, 410, get(ann, id));
});

// checklist: 201, 202
test("a_wrong_key_secret_or_clock_is_refused", [201, 202], async (_, signed) => {
  const socket = await chat(signed);
  const id = await idOf(socket);
  const of = (...given) => get(client(signed, "chat/dev", signer(...given)), id);
  await refused("UnrecognizedClientException", "The security token", of("AKIANOBODY", "secret"));
  await refused("InvalidSignatureException", "The request signature we calculated", of("AKIAANN", "another-secret-01"));
  const late = { systemClockOffset: -6 * 60 * 1_000 };
  await refused("InvalidSignatureException", "Signature expired: ", of("AKIAANN", "secret-of-ann-0001", late));
  socket.terminate();
});

const gateway = await startGateway();
const signed = await startGateway(join(root, "tests/sdk/iam.yaml"));
await main("sdk-javascript", gateway, signed);
await gateway.stop();
await signed.stop();
