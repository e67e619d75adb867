// A call between machines as docs/turn.md has it: the page by HTTPS with a certificate of Halley's own making, at an address that isn't loopback's.
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { call, caller, expectRelayed, hangUp, madeUp, report } from "../browser/caller.ts";
import { online, realHalley } from "../browser/real.ts";
import { startHalley } from "../browser/stack.ts";
import { addAddress, address, dropAddress, ownNetwork, relayPorts } from "./network.ts";

/** Open to other machines is what has TLS, and nothing else; the relay goes along. */
async function start() {
  const halley = await startHalley({
    ...relayPorts,
    HALLEY_TLS_SELF_SIGNED: "true",
    HALLEY_ALL_HTTPS_ADDR: "0.0.0.0:3112",
    HALLEY_ALL_WSS_ADDR: "0.0.0.0:3103",
    HALLEY_ALL_TURN_ADDR: undefined,
    HALLEY_LOGIC_TURN_RELAY_ONLY: "true",
  });
  return { ...halley, url: `https://${address}:3112`, plain: halley.url };
}

describe.skipIf(!ownNetwork)("from another machine", () => {
  beforeAll(addAddress);
  afterAll(dropAddress);
  const real = realHalley([...madeUp, "--ignore-certificate-errors"], start);

  /** Somebody comes with a token: by name one comes on loopback only. */
  async function enter(uid: string, other: string): Promise<Page> {
    const { plain, apiKey } = real.halley();
    const response = await fetch(`${plain}/v1/tokens`, {
      method: "POST",
      headers: { Authorization: `Bearer ${apiKey()}`, "Content-Type": "application/json" },
      body: JSON.stringify({ uid, device: "d" }),
    });
    const { token } = (await response.json()) as { token: string };
    const page = await real.visit(`/#d/${[uid, other].sort().join("/")}`, caller);
    await page.getByRole("button", { name: "I have a token" }).click();
    await page.getByRole("textbox", { name: "Token" }).fill(token);
    await page.getByRole("button", { name: "Connect" }).click();
    await online(page);
    await page.getByRole("main", { name: other }).waitFor();
    return page;
  }

  it("two call each other through the relay inside, at the machine's address", async () => {
    const [ann, bob] = [await enter("ann", "bob"), await enter("bob", "ann")];
    const { near, far } = await call(ann, bob);
    report(`on ${await ann.evaluate(() => location.origin)}`, { ann: near, bob: far });
    expectRelayed([...near, ...far], "udp");
    expect([...near, ...far].every((f) => f.path.startsWith(`${address}:`))).toBe(true);
    await hangUp(ann, bob);
    await real.leave(ann, bob);
  });
});
