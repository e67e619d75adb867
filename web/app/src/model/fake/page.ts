// The messenger on the demonstration's world, with a handle on it for tests.
import { Messenger } from "../messenger.ts";
import { demoWorld, enliven } from "./demo.ts";
import { FakePort } from "./port.ts";
import { World } from "./world.ts";

declare global {
  var fake: { world: World; port: FakePort; messenger: Messenger } | undefined;
}

export function fakeMessenger(): Messenger {
  const options = new URLSearchParams(location.search);
  const world = options.has("empty") ? new World() : demoWorld();
  const port = new FakePort(world, "ann");
  port.delay = Number(options.get("delay") ?? 20);
  if (!options.has("quiet")) enliven(world);
  const messenger = new Messenger(port);
  globalThis.fake = { world, port, messenger };
  return messenger;
}
