import { Chat } from "@halley-im/sdk";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { fakeWebSocket } from "../../sdk/test/server.ts";
import { SdkPort } from "../src/model/sdk.ts";
import type { PortEvents } from "../src/model/types.ts";

const ears = new Proxy({}, { get: () => () => {} }) as PortEvents;
const net = fakeWebSocket();
let port: SdkPort;

beforeEach(() => {
  vi.useFakeTimers({ now: 1_700_000_000_000 });
  const kept = new Map<string, string>();
  vi.stubGlobal("localStorage", {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, text: string) => kept.set(key, text),
    removeItem: (key: string) => kept.delete(key),
    key: (i: number) => [...kept.keys()][i] ?? null,
    get length() {
      return kept.size;
    },
  });
  vi.stubGlobal("location", { protocol: "http:" });
  vi.stubGlobal("WebSocket", net.webSocket);
  port = new SdkPort({ name: "", uid: "ann", token: "t" }, [{ ws: "ws://a/sub" }], () => {});
});
afterEach(async () => {
  await port.close(false);
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const pass = () => vi.advanceTimersByTimeAsync(0);

describe("the port on the SDK", () => {
  it("goes by the server's clock as soon as it knows it", async () => {
    expect(port.now()).toBe(Date.now());
    port.start(ears);
    await pass();
    net.last.accept({ server_time: Date.now() + 3_600_000 });
    await pass();
    expect(port.now()).toBe(Date.now() + 3_600_000);
  });

  it("finds one member by the place before him", async () => {
    const asked = vi.spyOn(Chat.prototype, "request").mockResolvedValue({ members: [{ uid: "ann", role: "member", muted_until: 7 }], next: "ann" });
    expect(await port.member("g/1", "ann")).toMatchObject({ uid: "ann", mutedUntil: 7 });
    expect(asked).toHaveBeenCalledWith("conversation.members", { conversation: "g/1", cursor: `anm${"z".repeat(61)}`, limit: 1 });
    // Who stands behind the place is another one.
    expect(await port.member("g/1", "anna")).toBeUndefined();
  });

  it("keeps drafts on the device until they are forgotten, apart from another's", async () => {
    const other = new SdkPort({ name: "", uid: "ann2", token: "t" }, [], () => {});
    other.keepDraft("d/ann2/bob", "another's");
    port.keepDraft("d/ann/bob", "one");
    port.keepDraft("g/1", "two");
    port.keepDraft("g/2", "");
    port.keepDraft("g/1", undefined);
    const again = new SdkPort({ name: "", uid: "ann", token: "t" }, [], () => {});
    expect([...again.keptDrafts()]).toEqual([["d/ann/bob", "one"], ["g/2", ""]]);
    await again.close(true);
    expect(port.keptDrafts().size).toBe(0);
    expect(other.keptDrafts().size).toBe(1);
  });
});
