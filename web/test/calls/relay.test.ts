// Calls through a relay: that of `halley all` (pion/turn), and coturn.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { answer, button, call, caller, expectRelayed, flow, flowsOn, hangUp, madeUp, report, talking, tryRelays } from "../browser/caller.ts";
import { realHalley, talkTo } from "../browser/real.ts";
import { startHalley, until } from "../browser/stack.ts";
import { startCoturn, stopCoturn } from "./coturn.ts";
import { blockUDP, openUDP, ownNetwork, relayPorts } from "./network.ts";

const dir = mkdtempSync(join(tmpdir(), "halley-relay-"));
let coturn: Record<string, string> = {};
beforeAll(() => {
  coturn = startCoturn(dir);
}, 60_000);
afterAll(() => {
  openUDP();
  stopCoturn(dir);
  rmSync(dir, { recursive: true });
});

const servers: [string, () => Record<string, string>][] = [
  ["the relay of halley all", () => relayPorts],
  ["coturn", () => coturn],
];

describe.each(servers)("relays only, %s", (name, settings) => {
  const real = realHalley(madeUp, () => startHalley({ ...settings(), HALLEY_LOGIC_TURN_RELAY_ONLY: "true" }));

  it("a call goes by two relays, and neither learns the other's address", async () => {
    const [ann, bob] = [await real.enter("ann", caller), await real.enter("bob", caller)];
    await talkTo(ann, "bob");
    const { near, far } = await call(ann, bob);
    report(`through ${name}`, { ann: near, bob: far });
    expectRelayed([...near, ...far], "udp");
    for (const page of [ann, bob]) {
      const told = await page.evaluate(() => window.connections.flatMap((pc) => [...(pc.remoteDescription?.sdp ?? "").matchAll(/ typ (\w+)/g)].map((m) => m[1])));
      expect(told.filter((type) => type !== "relay")).toEqual([]);
    }
    await hangUp(ann, bob);
    await real.leave(ann, bob);
  });
});

describe.skipIf(!ownNetwork).each(servers)("no UDP, %s", (name, settings) => {
  const real = realHalley(madeUp, () => startHalley(settings()));

  it("a call goes by relays over TCP, and one that UDP is taken from in the middle goes on by it", { timeout: 180_000 }, async () => {
    const [ann, bob] = [await real.enter("ann", caller), await real.enter("bob", caller)];
    await talkTo(ann, "bob");
    const { near, far } = await call(ann, bob);
    report("all is open", { ann: near, bob: far });
    try {
      blockUDP();
      // ICE notices by itself, after seconds; then it is restarted.
      await until(async () => (await flow(ann)).every((f) => f.pair.startsWith("relay by tcp")) && (await flow(ann)).length === 1, 60_000);
      await Promise.all([talking(ann).waitFor(), talking(bob).waitFor()]);
      const [toAnn, toBob] = [await flowsOn(ann, await flow(ann)), await flowsOn(bob, await flow(bob))];
      report(`UDP is blocked in the middle, through ${name}`, { ann: toAnn, bob: toBob });
      expectRelayed([...toAnn, ...toBob], "tcp");
      await hangUp(bob, ann);

      const again = await call(ann, bob);
      report(`UDP is blocked from the beginning, through ${name}`, { ann: again.near, bob: again.far });
      expectRelayed([...again.near, ...again.far], "tcp");
      await hangUp(ann, bob);
      expect(await tryRelays(ann)).toEqual({ problem: "udp_blocked", faults: { udp: "unreachable", tcp: "" } });
    } finally {
      openUDP();
    }
    await real.leave(ann, bob);
  });
});

const down = { HALLEY_LOGIC_TURN_URLS: "turn:127.0.0.1:9?transport=udp,turn:127.0.0.1:9?transport=tcp", HALLEY_LOGIC_TURN_SECRET: "a secret that nobody asks for" };

describe("relays only, and they are down", () => {
  const real = realHalley(madeUp, () => startHalley({ ...down, HALLEY_LOGIC_TURN_RELAY_ONLY: "true", HALLEY_LOGIC_CALL_MEDIA_TIMEOUT: "6s" }));

  it("both are told that no connection came about, and what may be in the way", async () => {
    const [ann, bob] = [await real.enter("ann", caller), await real.enter("bob", caller)];
    await talkTo(ann, "bob");
    await button(ann, "Video call").click();
    await answer(bob);
    await Promise.all([ann, bob].map((page) => page.getByText(/No connection between you came about. A firewall may be in the way/).first().waitFor({ timeout: 30_000 })));
    await ann.locator(".call-record", { hasText: "Call without a connection" }).waitFor();
    await real.leave(ann, bob);
  });
});

/** A relay that serves UDP, and another address of it that doesn't work. */
const beside = (url: string) => ({ ...coturn, HALLEY_LOGIC_TURN_URLS: `${coturn.HALLEY_LOGIC_TURN_URLS?.split(",")[0]},${url}` });

describe.each<[string, () => Record<string, string>, string, Record<string, string>]>([
  ["a secret that isn't the server's", () => ({ ...coturn, HALLEY_LOGIC_TURN_SECRET: "not the secret of the relay" }), "refused", { udp: "refused", tcp: "refused" }],
  ["a relay that is down", () => down, "down", { udp: "unreachable", tcp: "unreachable" }],
  ["a relay that answers by UDP only", () => beside("turn:127.0.0.1:9?transport=tcp"), "tcp_blocked", { udp: "", tcp: "unreachable" }],
  [
    "a relay whose certificate nobody has signed",
    () => ({ ...relayPorts, HALLEY_TLS_SELF_SIGNED: "true", HALLEY_ALL_TURN_TLS_ADDR: "127.0.0.1:0", HALLEY_ALL_HTTPS_ADDR: "127.0.0.1:0", HALLEY_ALL_WSS_ADDR: "127.0.0.1:0" }),
    "tls",
    { udp: "", tcp: "", tls: "unreachable" },
  ],
  ["a relay that has one for each user, where two are needed", () => ({ ...relayPorts, HALLEY_ALL_TURN_MAX_PER_USER: "1" }), "full", { udp: "full", tcp: "full" }],
  ["a relay that names another address than its own", () => ({ ...relayPorts, HALLEY_ALL_TURN_EXTERNAL: "192.0.2.1", HALLEY_ALL_TURN_HOST: "127.0.0.1" }), "no_packets", { udp: "no_packets", tcp: "no_packets" }],
  ["a relay that may relay to nobody here", () => ({ ...relayPorts, HALLEY_ALL_TURN_DENY_PEERS: "127.0.0.0/8" }), "no_packets", { udp: "no_packets", tcp: "no_packets" }],
  ["no relay", () => ({ HALLEY_ALL_TURN_ADDR: "" }), "no_turn", {}],
])("%s", (name, settings, problem, faults) => {
  const real = realHalley(madeUp, () => startHalley(settings()));

  it("the test of relays names what is wrong, and who reaches each other calls all the same", async () => {
    const [ann, bob] = [await real.enter("ann", caller), await real.enter("bob", caller)];
    expect(await tryRelays(ann)).toEqual({ problem, faults });
    await talkTo(ann, "bob");
    const { near, far } = await call(ann, bob);
    report(`with ${name}`, { ann: near, bob: far });
    expect([...near, ...far].map((f) => f.pair)).toEqual(["host-host", "host-host"]);
    await hangUp(ann, bob);
    await real.leave(ann, bob);
  });
});
