import { describe, expect, it } from "vitest";
import { fromHere } from "../src/api.ts";

describe("where a page looks for comets", () => {
  it.each([
    ["wss://127.0.0.1:3103/sub", "192.168.1.5", "wss://192.168.1.5:3103/sub"],
    ["wss://[::1]:3103/sub", "im.example.org", "wss://im.example.org:3103/sub"],
    ["ws://localhost/sub", "[fd00::5]", "ws://[fd00::5]/sub"],
    ["ws://127.0.0.1:3102/sub", "localhost", "ws://127.0.0.1:3102/sub"],
    ["ws://127.0.0.1:3102/sub", "127.0.0.1", "ws://127.0.0.1:3102/sub"],
    ["wss://comet1.example.org:3103/sub", "192.168.1.5", "wss://comet1.example.org:3103/sub"],
    ["wss://localhost.example.org/sub", "192.168.1.5", "wss://localhost.example.org/sub"],
    ["wss://127.0.0.1.example.org/sub", "192.168.1.5", "wss://127.0.0.1.example.org/sub"],
  ])("%s on a page of %s is %s", (url, host, want) => expect(fromHere(url, host)).toBe(want));
});
