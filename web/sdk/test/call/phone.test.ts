import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { budget, callProblem, LocalMedia, type MediaTrouble, Phone } from "../../src/call/index.ts";
import { iceServers } from "../../src/call/ice.ts";
import { digest, qualityOf } from "../../src/call/stats.ts";
import { FakeDevices, FakePC, FakeServer, FakeTrack } from "./fakes.ts";

let server: FakeServer;
let devices: FakeDevices;

beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  devices = new FakeDevices();
  vi.stubGlobal("navigator", { mediaDevices: devices });
  vi.stubGlobal("RTCPeerConnection", FakePC);
  vi.stubGlobal("MediaStream", class {});
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const settle = (ms = 100) => vi.advanceTimersByTimeAsync(ms);

function phoneOf(uid: string, quiet = false) {
  const stopped: string[] = [];
  const phone = new Phone(server.line(uid), { kept: { load: () => null, save: () => {} }, quiet: () => quiet });
  phone.on("stopped", ({ reason }) => stopped.push(reason));
  phone.start();
  return { phone, stopped };
}

describe("ringing", () => {
  it("is told at once, and ends with its time", async () => {
    const [ann, bob] = [phoneOf("ann"), phoneOf("bob", true)];
    await ann.phone.dial({ to: ["bob"], media: "audio" });
    await settle();
    expect(bob.phone.ringing.map((c) => c.caller)).toEqual(["ann"]);
    expect(server.log.find((l) => l.method === "call.ringing")?.params).toMatchObject({ quiet: true });
    await settle(45_000);
    expect(bob.phone.ringing).toEqual([]);
    expect(bob.stopped).toEqual(["timeout"]);
    ann.phone.close();
  });

  it.each(["answered_elsewhere", "declined_elsewhere", "cancelled"])("ends when it is told %s", async (reason) => {
    const [ann, bob] = [phoneOf("ann"), phoneOf("bob")];
    await ann.phone.dial({ to: ["bob"], media: "audio" });
    await settle();
    server.tell("bob", { "call.stop": { call: server.call?.call ?? "", reason } });
    await settle();
    expect(bob.phone.ringing).toEqual([]);
    expect(bob.stopped).toEqual([reason]);
    ann.phone.close();
  });

  it("ends in the other windows of the connection, which are told no stop", async () => {
    const [ann, bob] = [phoneOf("ann"), phoneOf("bob")];
    await ann.phone.dial({ to: ["bob"], media: "audio" });
    await settle();
    server.change(() => Object.assign(server.leg("bob"), { state: "accepted", generation: 1, holder: "another", order: 2 }), "connecting");
    await settle();
    expect(bob.stopped).toEqual(["answered_elsewhere"]);
    ann.phone.close();
  });

  it("doesn't begin for a call that is past, resumed, or was stopped before it came", async () => {
    const bob = phoneOf("bob");
    const call = { call: "1", state: "inviting", caller: "ann", legs: [{ uid: "bob", state: "invited" }], ring_until: 1000 };
    bob.phone.take({ "call.incoming": { call, server_time: 1000 } });
    bob.phone.take({ "call.incoming": { call: { ...call, ring_until: 9000 }, server_time: 1000, resumed: true } });
    bob.phone.take({ "call.stop": { call: "2", reason: "cancelled" } });
    bob.phone.take({ "call.incoming": { call: { ...call, call: "2", ring_until: 9000 }, server_time: 1000 } });
    expect(bob.phone.ringing).toEqual([]);
  });

  it("begins for what rings when a device wakes", async () => {
    const ann = phoneOf("ann");
    await ann.phone.dial({ to: ["bob"], media: "video" });
    await settle();
    const bob = phoneOf("bob");
    await settle();
    expect(bob.phone.ringing).toHaveLength(1);
    ann.phone.close();
  });

  it("goes on when it began while it was asked what rings, and ends when that is asked after a stop that was missed", async () => {
    const line = server.line("bob");
    let doubt = () => {};
    vi.spyOn(line, "listen").mockImplementation((events) => {
      doubt = () => events.doubt();
      return () => {};
    });
    const phone = new Phone(line, { kept: { load: () => null, save: () => {} } });
    phone.start();
    const incoming = { call: { call: "1", state: "inviting", caller: "ann", legs: [{ uid: "bob", state: "invited" }], ring_until: 9000 }, server_time: 1000 };
    vi.spyOn(line, "request").mockImplementation(async (method) => (method === "call.current" ? { calls: [] } : new Promise(() => {})) as never);
    doubt();
    phone.take({ "call.incoming": incoming });
    await settle();
    expect(phone.ringing.map((c) => c.id)).toEqual(["1"]);
    doubt();
    await settle();
    expect(phone.ringing).toEqual([]);
    phone.close();
  });

  it("goes on where one can't answer, since one is calling", async () => {
    const [ann, bob] = [phoneOf("ann"), phoneOf("bob")];
    await settle();
    await ann.phone.dial({ to: ["bob"], media: "audio" });
    await settle();
    const dialling = bob.phone.dial({ to: ["cy"], media: "audio" });
    await expect(bob.phone.answer(server.call?.call ?? "", { camera: false })).rejects.toMatchObject({ code: "busy_here" });
    expect(bob.phone.ringing).toHaveLength(1);
    await dialling;
    for (const { phone } of [ann, bob]) phone.close();
  });

  it("whoever loses the race has no call, and no fault; his devices are let go", async () => {
    const [ann, bob] = [phoneOf("ann"), phoneOf("bob")];
    let elsewhere: string | undefined;
    bob.phone.on("elsewhere", (call) => (elsewhere = call?.id));
    await ann.phone.dial({ to: ["bob"], media: "audio" });
    await settle();
    const id = server.call?.call ?? "";
    Object.assign(server.leg("bob"), { state: "accepted", generation: 1, holder: "another", order: 2 });
    expect(await bob.phone.answer(id, { camera: true })).toBeUndefined();
    expect(elsewhere).toBe(id);
    expect(devices.opened.filter((t) => t.kind === "video").every((t) => t.readyState === "ended")).toBe(true);
    ann.phone.close();
  });
});

describe("a phone that is closed while a call is begun", () => {
  it("lets the devices go, and calls nobody", async () => {
    const ann = phoneOf("ann");
    const dialling = ann.phone.dial({ to: ["bob"], media: "video" });
    ann.phone.close();
    await expect(dialling).rejects.toMatchObject({ code: "closed" });
    expect(server.call).toBeUndefined();
    expect(devices.opened.every((t) => t.readyState === "ended")).toBe(true);
  });

  it("hangs up what the server has made meanwhile", async () => {
    const ann = phoneOf("ann");
    const answer = server.answer.bind(server);
    vi.spyOn(server, "answer").mockImplementation((from, method, p) => {
      const reply = answer(from, method, p);
      if (method === "call.invite") ann.phone.close();
      return reply;
    });
    await expect(ann.phone.dial({ to: ["bob"], media: "video" })).rejects.toMatchObject({ code: "closed" });
    expect(server.call?.state).toBe("ended");
    expect(ann.phone.call).toBeUndefined();
    expect(devices.opened.every((t) => t.readyState === "ended")).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("devices", () => {
  const open = async (fail: FakeDevices["fail"]) => {
    devices.fail = fail;
    const media = new LocalMedia();
    const troubles: MediaTrouble[] = [];
    media.on("trouble", (t) => troubles.push(t));
    await media.open({ camera: true });
    return { media, troubles };
  };

  it.each([
    ["NotAllowedError", "denied"],
    ["NotFoundError", "missing"],
    ["NotReadableError", "in_use"],
    ["TypeError", "failed"],
  ])("%s of the camera is %s, and the microphone goes on", async (name, why) => {
    const { media, troubles } = await open({ video: name });
    expect(troubles).toEqual([{ what: "camera", why }]);
    expect(media.sends).toEqual({ audio: true, video: false, screen: false });
  });

  it("a microphone that is pulled out is told, and another one takes its place", async () => {
    const { media, troubles } = await open({});
    (media.track("audio") as unknown as FakeTrack).unplug();
    await settle();
    expect(troubles).toEqual([{ what: "audio", why: "unplugged" }]);
    expect(media.sends.audio).toBe(true);
  });

  it("a camera that is pulled out is told, and isn't sent any more; it is opened again when somebody wants that", async () => {
    const { media, troubles } = await open({});
    (media.track("camera") as unknown as FakeTrack).unplug();
    await settle();
    expect(troubles).toEqual([{ what: "camera", why: "unplugged" }]);
    expect(media.sends).toEqual({ audio: true, video: false, screen: false });
    await media.camera(true);
    expect(media.sends.video).toBe(true);
  });

  it("another one that is chosen is opened in the place of the one before, and any other when it is gone", async () => {
    devices.list = [{ kind: "videoinput", deviceId: "c1" }, { kind: "videoinput", deviceId: "c2" }, { kind: "audioinput", deviceId: "m1" }];
    const { media, troubles } = await open({});
    const before = media.track("camera");
    await media.choose("camera", "c2");
    await media.choose("audio", "m1");
    expect([media.device("camera"), media.device("audio"), before?.readyState]).toEqual(["c2", "m1", "ended"]);
    await media.camera(false);
    devices.list = [];
    await media.camera(true);
    expect(media.device("camera")).toBe("default");
    expect(troubles).toEqual([]);
    // Chosen while it is off, it waits until it is on.
    devices.list = [{ kind: "videoinput", deviceId: "c1" }];
    await media.camera(false);
    await media.choose("camera", "c1");
    expect(media.sends.video).toBe(false);
    await media.camera(true);
    expect(media.device("camera")).toBe("c1");
  });

  it("cameras are switched in turn; on what is touched, front and back", async () => {
    devices.list = [{ kind: "videoinput", deviceId: "c1" }, { kind: "audioinput", deviceId: "m1" }, { kind: "videoinput", deviceId: "c2" }];
    const { media } = await open({});
    const seen: string[] = [];
    for (let i = 0; i < 3; i++) {
      await media.switchCamera();
      seen.push(media.device("camera"));
    }
    expect(seen).toEqual(["c1", "c2", "c1"]);
    vi.stubGlobal("navigator", { mediaDevices: devices, maxTouchPoints: 5 });
    const phone = (await open({})).media;
    await phone.switchCamera();
    expect(phone.device("camera")).toBe("back");
    await phone.switchCamera();
    expect(phone.device("camera")).toBe("default");
  });

  it("off is off: the camera is let go; mute keeps the microphone, silent", async () => {
    const { media } = await open({});
    const camera = media.track("camera");
    await media.camera(false);
    media.mute(true);
    expect(camera?.readyState).toBe("ended");
    expect(media.track("audio")).toMatchObject({ enabled: false, readyState: "live" });
  });

  it("what the browser gives after devices were let go is let go at once, until they are opened again", async () => {
    const media = new LocalMedia();
    const opening = media.open({ camera: true });
    const sharing = media.screen(true);
    media.rest();
    await opening;
    await sharing;
    await media.camera(true);
    expect(devices.opened.map((t) => t.readyState)).toEqual(devices.opened.map(() => "ended"));
    expect(media.sends).toEqual({ audio: false, video: false, screen: false });
    await media.open({ camera: true });
    expect(media.sends).toEqual({ audio: true, video: true, screen: false });
  });

  it("a page without HTTPS, and a browser without WebRTC, are told apart", () => {
    expect(callProblem()).toBeUndefined();
    vi.stubGlobal("isSecureContext", false);
    expect(callProblem()).toBe("insecure");
    Reflect.deleteProperty(globalThis, "RTCPeerConnection");
    expect(callProblem()).toBe("no_webrtc");
  });
});

describe("credentials", () => {
  const hour = 3_600_000;
  // Good for 5 h, to be renewed after 4, by the server's clock.
  const list = { servers: [{ urls: ["turn:a"], username: "1" }], expires_at: 105 * hour, renew_at: 104 * hour, turn: true };
  const going = () => true;
  it.each([
    ["is right", 0],
    ["is an hour ahead", 1],
    ["is years ahead", 30_000],
    ["is an hour behind", -1],
    ["is days behind", -99],
  ])("are renewed in time by a clock that %s", async (_, off) => {
    server.servers = list;
    const now = (100 + off) * hour;
    const { renewAt } = await iceServers(server.line("ann"), () => now, going);
    expect(renewAt - now).toBe(4 * hour);
  });

  it("aren't asked for without pause", async () => {
    server.servers = { ...list, expires_at: 0, renew_at: 1 };
    expect((await iceServers(server.line("ann"), () => 100 * hour, going)).renewAt).toBe(100 * hour + 60_000);
  });
});

describe("figures", () => {
  it("what is sent to each falls as the mesh grows", () => {
    const video = [1, 2, 3, 4, 5, 9].map((n) => budget(n).video);
    expect(video).toEqual([...video].sort((a, b) => b - a));
    expect(budget(5).video * 5).toBeLessThanOrEqual(2_000_000);
    expect(budget(1, true).video).toBeLessThan(budget(1).video);
  });

  it("reports tell what was since the one before", () => {
    const report = (bytes: number, packets: number, lost: number, frames: number): [string, object][] => [
      ["t", { id: "t", type: "transport", selectedCandidatePairId: "p" }],
      ["p", { id: "p", type: "candidate-pair", localCandidateId: "l", remoteCandidateId: "r", bytesSent: bytes, bytesReceived: 2 * bytes, currentRoundTripTime: 0.05 }],
      ["l", { id: "l", type: "local-candidate", candidateType: "relay", protocol: "udp", relayProtocol: "tls" }],
      ["r", { id: "r", type: "remote-candidate", candidateType: "host" }],
      ["v", { id: "v", type: "inbound-rtp", packetsReceived: packets, packetsLost: lost, framesDecoded: frames, jitter: 0.01 }],
    ];
    const first = digest("bob", report(1000, 90, 10, 20), undefined, 0);
    const { peer } = digest("bob", report(11_000, 180, 20, 320), first.sums, 10_000);
    expect(peer).toMatchObject({ uid: "bob", local: "relay", remote: "host", protocol: "tls", frames: 300, sent_bitrate: 8000, received_bitrate: 16_000, round_trip_ms: 50, jitter_ms: 10 });
    expect(peer.loss).toBeCloseTo(0.1);
    expect(qualityOf(peer)).toMatchObject({ level: "poor", path: "relay" });
  });
});
