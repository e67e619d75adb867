import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { judge, type RelayFault, type RelayResult, testRelays, type Way, wayOf } from "../../src/call/selftest.ts";
import { FakeServer } from "./fakes.ts";

const result = (way: Way, fault?: RelayFault): RelayResult => ({ url: way, way, fault, detail: "", roundTrip: fault ? 0 : 5 });

it.each<[string, [Way, RelayFault?][], string]>([
  ["all work", [["udp"], ["tcp"], ["tls"]], "none"],
  ["none is named", [], "no_turn"],
  ["none answers", [["udp", "unreachable"], ["tcp", "unreachable"]], "down"],
  ["only TCP answers", [["udp", "unreachable"], ["tcp"]], "udp_blocked"],
  ["only TLS answers", [["udp", "unreachable"], ["tcp", "unreachable"], ["tls"]], "udp_blocked"],
  ["only UDP answers", [["udp"], ["tcp", "unreachable"], ["tls", "unreachable"]], "tcp_blocked"],
  ["only TLS doesn't", [["udp"], ["tcp"], ["tls", "unreachable"]], "tls"],
  ["the credential is refused by whoever answers", [["udp", "unreachable"], ["tcp", "refused"]], "refused"],
  ["a quota is reached", [["udp", "full"], ["tcp"]], "full"],
  ["nothing gets through the relays", [["udp", "no_packets"], ["tcp", "no_packets"]], "no_packets"],
  ["one server of two is down", [["udp"], ["udp", "unreachable"], ["tcp"]], "down"],
  ["the browser takes none of it", [["udp", "failed"]], "failed"],
])("%s", (_, results, want) => {
  expect(judge(results.map(([way, fault]) => result(way, fault)))).toBe(want);
});

it("knows the way by the URL", () => {
  expect(["turn:x:3478", "turn:x:3478?transport=udp", "turn:x:3478?transport=tcp", "turns:x:5349?transport=tcp"].map(wayOf)).toEqual(["udp", "udp", "tcp", "tls"]);
});

/** Two of these whose relays are as the test says; they find each other by the order in which they are made. */
class RelayPC {
  static all: RelayPC[] = [];
  /** What becomes of an address: a relay, a code of refusal, or silence. */
  static at: (url: string) => "relay" | "lost" | number | undefined = () => "relay";
  readonly at = RelayPC.all.push(this) - 1;
  iceGatheringState = "new";
  closed = false;
  localDescription: object | null = null;
  onicecandidate?: (e: object) => void;
  onicecandidateerror?: (e: object) => void;
  onicegatheringstatechange?: () => void;
  ondatachannel?: (e: object) => void;
  #channel: { onopen?(): void; onmessage?(e: object): void; send(data: string): void } | undefined;
  #relays = 0;

  constructor(readonly config: RTCConfiguration) {
    expect(config.iceTransportPolicy).toBe("relay");
  }
  get other(): RelayPC {
    return RelayPC.all[this.at ^ 1] as RelayPC;
  }
  createDataChannel(): object {
    const far = { onmessage: undefined as ((e: object) => void) | undefined, send: (data: string) => this.#channel?.onmessage?.({ data }) };
    this.#channel = { send: (data) => far.onmessage?.({ data }) };
    this.other.ondatachannel?.({ channel: far });
    return this.#channel;
  }
  async setLocalDescription(): Promise<void> {
    this.localDescription = {};
    const [server] = this.config.iceServers ?? [];
    const becomes = RelayPC.at(String((server?.urls as string[])[0]));
    setTimeout(() => {
      if (becomes === "relay" || becomes === "lost") this.onicecandidate?.({ candidate: { candidate: "candidate:relay" } });
      else if (becomes !== undefined) this.onicecandidateerror?.({ errorCode: becomes, errorText: "said so" });
      else return;
      this.iceGatheringState = "complete";
      this.onicegatheringstatechange?.();
    }, 10);
  }
  async setRemoteDescription(): Promise<void> {}
  async addIceCandidate(): Promise<void> {
    this.#relays++;
    const near = this.at % 2 === 0 ? this : this.other;
    const [server] = this.config.iceServers ?? [];
    if (this.#relays && this.other.#relays && RelayPC.at(String((server?.urls as string[])[0])) === "relay") near.#channel?.onopen?.();
  }
  close(): void {
    this.closed = true;
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  RelayPC.all = [];
  vi.stubGlobal("navigator", { mediaDevices: { getUserMedia: () => {} } });
  vi.stubGlobal("RTCPeerConnection", RelayPC);
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function tested(server: FakeServer) {
  const done = testRelays(server.line("ann"), { connect: (config) => new RelayPC(config) as unknown as RTCPeerConnection });
  await vi.advanceTimersByTimeAsync(13_000);
  const report = await done;
  expect(RelayPC.all.every((pc) => pc.closed)).toBe(true);
  expect(vi.getTimerCount()).toBe(0);
  return report;
}

function told(...urls: string[]): FakeServer {
  const server = new FakeServer();
  server.servers = { servers: [{ urls: ["stun:x:1"] }, { urls, username: "1:ann", credential: "x" }], turn: true };
  return server;
}

it("tries each address by itself, with the credential, and no STUN server", async () => {
  RelayPC.at = (url) => (url.includes("tcp") ? undefined : "relay");
  const report = await tested(told("turn:x:1?transport=udp", "turn:x:1?transport=tcp"));
  expect(report.problem).toBe("tcp_blocked");
  expect(report.results).toMatchObject([{ way: "udp", fault: undefined }, { way: "tcp", fault: "unreachable", roundTrip: 0 }]);
  expect(report.results[0]?.roundTrip).toBeGreaterThan(0);
  for (const pc of RelayPC.all) expect(pc.config.iceServers).toMatchObject([{ username: "1:ann", credential: "x" }]);
});

it.each<[number, string]>([[401, "refused"], [486, "full"], [508, "full"], [701, "unreachable"], [500, "failed"]])("code %d is %s, with the server's words", async (code, fault) => {
  RelayPC.at = () => code;
  const { results } = await tested(told("turn:x:1?transport=udp"));
  expect(results).toMatchObject([{ fault, detail: `${code} said so` }]);
});

it("a relay through which nothing gets is told apart from none", async () => {
  RelayPC.at = () => "lost";
  expect((await tested(told("turn:x:1"))).problem).toBe("no_packets");
});

it("a server that names none, or doesn't answer, is said to", async () => {
  expect((await tested(told())).problem).toBe("no_turn");
  const server = told("turn:x:1");
  server.answer = () => {
    throw new Error("away");
  };
  expect((await tested(server)).problem).toBe("unasked");
  vi.stubGlobal("isSecureContext", false);
  expect((await tested(told())).problem).toBe("insecure");
});
