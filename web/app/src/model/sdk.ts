import type { Endpoint } from "../api.ts";
import type { Credentials } from "../messenger/login.tsx";
import { FakePort } from "./fake/port.ts";
import { World } from "./fake/world.ts";
export class SdkPort extends FakePort {
  constructor(c: Credentials, _e: Endpoint[], _t: (token: string) => void) {
    super(new World(), c.uid);
  }
}
