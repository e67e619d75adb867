import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Peer, type Signal } from "../../src/call/peer.ts";
import { FakePC } from "./fakes.ts";

const peers: Peer[] = [];

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("MediaStream", class {});
  FakePC.all = [];
  FakePC.blocked = false;
});
afterEach(() => {
  for (const peer of peers.splice(0)) peer.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const settle = (ms = 200) => vi.advanceTimersByTimeAsync(ms);

/** One end, whose signals lie there until they are delivered: what crosses on the way is the test's to say. */
class End {
  readonly peer: Peer;
  readonly sent: Signal[] = [];
  readonly pc: FakePC;
  hopeless = 0;
  generation = 1;

  constructor(name: string, polite: boolean) {
    this.peer = new Peer({
      uid: name,
      generation: 1,
      order: polite ? 1 : 2,
      polite,
      config: {},
      connect: (config) => new FakePC(config) as unknown as RTCPeerConnection,
      track: () => null,
      send: async (signal) => {
        this.sent.push(signal);
        return true;
      },
      changed: () => {},
      hopeless: () => void this.hopeless++,
    });
    peers.push(this.peer);
    this.pc = this.peer.pc as unknown as FakePC;
  }

  /** What it says first of a type, taken out of what is on its way. */
  take(type: string): Signal {
    const at = this.sent.findIndex((s) => s.description?.type === type);
    const [signal] = at < 0 ? [] : this.sent.splice(at, 1);
    if (!signal) throw new Error(`no ${type} among ${JSON.stringify(this.sent)}`);
    return signal;
  }

  has(type: string): boolean {
    return this.sent.some((s) => s.description?.type === type);
  }
}

async function deliver(signal: Signal, from: End, to: End): Promise<void> {
  to.peer.receive(signal, from.generation);
  await settle();
}

/** Ann came first, so that bob is polite; both are connected, and nothing is on its way. */
async function connected(): Promise<{ ann: End; bob: End }> {
  const [ann, bob] = [new End("bob", false), new End("ann", true)];
  bob.peer.begin();
  await settle();
  await deliver(bob.take("offer"), bob, ann);
  await deliver(ann.take("answer"), ann, bob);
  expect([ann.pc.connectionState, bob.pc.connectionState]).toEqual(["connected", "connected"]);
  for (const end of [ann, bob]) end.sent.length = 0;
  return { ann, bob };
}

it("offers that meet: the polite one takes back its own and answers, the impolite one lets it fall", async () => {
  const { ann, bob } = await connected();
  ann.peer.restart();
  bob.peer.restart();
  await settle();
  const [hers, his] = [ann.take("offer"), bob.take("offer")];
  await deliver(his, bob, ann);
  expect(ann.has("answer")).toBe(false);
  expect(ann.pc.signalingState).toBe("have-local-offer");
  await deliver(hers, ann, bob);
  await deliver(bob.take("answer"), bob, ann);
  expect([ann.pc.signalingState, bob.pc.signalingState]).toEqual(["stable", "stable"]);
  expect(ann.pc.remoteDescription?.sdp).toBe(bob.pc.localDescription?.sdp);
});

it("who comes back insists, though polite; the other one, though impolite, yields", async () => {
  const { ann, bob } = await connected();
  // Bob has another connection. Ann has heard of it, and the network changes at that moment: her offer meets his.
  bob.generation = 2;
  bob.peer.restart(undefined, true);
  await settle();
  ann.peer.comesBack(2);
  ann.peer.restart();
  await settle();
  const [hers, his] = [ann.take("offer"), bob.take("offer")];
  await deliver(hers, ann, bob);
  expect(bob.has("answer")).toBe(false);
  expect(bob.pc.signalingState).toBe("have-local-offer");
  await deliver(his, bob, ann);
  await deliver(ann.take("answer"), ann, bob);
  expect([ann.pc.signalingState, bob.pc.signalingState]).toEqual(["stable", "stable"]);
  expect(bob.pc.remoteDescription?.sdp).toBe(ann.pc.localDescription?.sdp);
  expect([ann.hopeless, bob.hopeless]).toEqual([0, 0]);

  // That was for once: from now on politeness decides again.
  ann.sent.length = bob.sent.length = 0;
  ann.peer.restart();
  bob.peer.restart();
  await settle();
  await deliver(bob.take("offer"), bob, ann);
  expect(ann.has("answer")).toBe(false);
  await deliver(ann.take("offer"), ann, bob);
  expect(bob.has("answer")).toBe(true);
});

it("who comes back without what it had insists on its first offer, though polite", async () => {
  const { ann } = await connected();
  const bob = new End("ann", true);
  bob.generation = 2;
  bob.peer.begin(true);
  await settle();
  const his = bob.take("offer");
  expect(his.negotiation).toBe(1);
  // Ann knows that he is back, not that he has lost all: her offer is about the connection that is gone.
  ann.peer.comesBack(2);
  ann.peer.restart();
  await settle();
  await deliver(ann.take("offer"), ann, bob);
  expect(bob.has("answer")).toBe(false);
  expect(ann.peer.isReplacedBy(his, 2)).toBe(true);
});

it("an offer that was asked of the last connection is taken back, and made again after theirs", async () => {
  const { ann, bob } = await connected();
  ann.peer.restart();
  await settle();
  ann.take("offer");
  bob.generation = 2;
  ann.peer.comesBack(2);
  await settle();
  expect(ann.pc.signalingState).toBe("stable");
  bob.peer.restart(undefined, true);
  await settle();
  await deliver(bob.take("offer"), bob, ann);
  await deliver(ann.take("answer"), ann, bob);
  await deliver(ann.take("offer"), ann, bob);
  await deliver(bob.take("answer"), bob, ann);
  expect([ann.pc.signalingState, bob.pc.signalingState]).toEqual(["stable", "stable"]);
});

it("two first offers meet: the polite one's place is taken by another connection, the impolite one's stays", async () => {
  const [ann, bob] = [new End("bob", false), new End("ann", true)];
  ann.peer.begin();
  bob.peer.begin();
  await settle();
  const [hers, his] = [ann.take("offer"), bob.take("offer")];
  expect(bob.peer.isReplacedBy(hers, 1)).toBe(true);
  expect(ann.peer.isReplacedBy(his, 1)).toBe(false);
  await deliver(his, bob, ann);
  expect(ann.has("answer")).toBe(false);
});

it("without an answer to who came back, his turn ends: politeness decides again", async () => {
  const { ann, bob } = await connected();
  bob.peer.restart(undefined, true);
  ann.peer.comesBack(2);
  bob.pc.to("disconnected");
  await settle(11_000);
  // What he offered was lost. Both try anew; hers counts.
  ann.sent.length = bob.sent.length = 0;
  ann.peer.restart();
  bob.peer.restart();
  await settle();
  const hers = ann.take("offer");
  await deliver(bob.take("offer"), bob, ann);
  await deliver(hers, ann, bob);
  expect(bob.has("answer")).toBe(true);
});

it("servers that the browser refuses don't make it show its addresses", () => {
  const configs: RTCConfiguration[] = [];
  const peer = new Peer({
    uid: "bob", generation: 1, order: 1, polite: true, config: { iceServers: [{ urls: ["turn:!"] }], iceTransportPolicy: "relay" },
    connect: (config) => {
      configs.push(config);
      if (config.iceServers) throw new DOMException("turn:!", "SyntaxError");
      return new FakePC(config) as unknown as RTCPeerConnection;
    },
    track: () => null, send: async () => true, changed: () => {}, hopeless: () => {},
  });
  peers.push(peer);
  expect(configs.at(-1)).toMatchObject({ iceTransportPolicy: "relay" });
});

it("of candidates without a description so many wait, and no more", async () => {
  const [ann, bob] = [new End("bob", false), new End("ann", true)];
  bob.peer.begin();
  await settle();
  for (let i = 0; i < 500; i++) ann.peer.receive({ negotiation: 1, candidates: [{ candidate: `candidate:x ${i}` }] }, 1);
  await deliver(bob.take("offer"), bob, ann);
  expect(ann.pc.candidates.filter((c) => c.startsWith("candidate:x"))).toHaveLength(400);
});
