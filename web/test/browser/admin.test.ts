// The page for operators, on a Halley: who is online, what they have open, groups, and word to all of them.
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { Client, type WebSocketConstructor } from "../../sdk/src/index.ts";
import { line, newGroup, realHalley, sure } from "./real.ts";
import { picture, until } from "./stack.ts";

const real = realHalley();
const [l, mo] = ["lea", "mo"].map(real.name) as [string, string];
/** More than a page of them. */
const crowd: Client[] = [];
const many = 60;
let lea: Page;
let admin: Page;
beforeAll(async () => {
  lea = await real.enter(l);
  admin = await real.visit("/admin");
  const { url } = real.halley();
  const key = real.halley().apiKey();
  const { endpoints } = (await fetch(`${url}/v1/endpoints`).then((r) => r.json())) as { endpoints: { ws?: string }[] };
  for (let n = 0; n < many; n++) {
    const answer = await fetch(`${url}/v1/tokens`, {
      method: "POST",
      headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
      body: JSON.stringify({ uid: real.name(`crowd${n}`) }),
    });
    const { token } = (await answer.json()) as { token: string };
    const client = new Client({ url: endpoints.find((e) => e.ws)?.ws ?? "", token, webSocket: WebSocket as unknown as WebSocketConstructor });
    crowd.push(client);
    client.connect();
  }
  await until(async () => crowd.every((client) => client.state.name === "online"));
  // Listed a moment later; what the page has read beyond the first of its pages it doesn't read again.
  await until(async () => {
    const uids = new Set<string>();
    for (let next: string | undefined = ""; next !== undefined; ) {
      const response = await fetch(`${url}/v1/presence?limit=1000&cursor=${encodeURIComponent(next)}`, { headers: { Authorization: `Bearer ${key}` } });
      const page = (await response.json()) as { users: { uid: string }[]; next?: string };
      for (const { uid } of page.users) uids.add(uid);
      next = page.next || undefined;
    }
    return [l, ...crowd.map((_, n) => real.name(`crowd${n}`))].every((uid) => uids.has(uid));
  });
});
afterAll(() => {
  for (const client of crowd) client.close();
});

const view = (name: string) => admin.getByRole("navigation").getByRole("button", { name }).click();
const row = (name: string) => admin.locator(".item").filter({ has: admin.getByText(name, { exact: true }) });

describe("the page for operators", () => {
  it("lets in with a key of the scope only", async () => {
    await admin.getByLabel(/^API key/).fill("hk_wrong_key");
    await admin.getByLabel(/^API key/).press("Enter");
    await admin.getByRole("alert").filter({ hasText: /isn’t valid/ }).waitFor();
    await admin.getByLabel(/^API key/).fill(real.halley().apiKey());
    await admin.getByLabel(/^API key/).press("Enter");
    await admin.getByText(/1 comet/).waitFor();
  });

  it("lists all who are online, a page at a time", async () => {
    await admin.getByRole("heading", { name: "Online now" }).waitFor();
    const rows = admin.locator(".item");
    await until(async () => (await rows.count()) === 50);
    await picture(admin, "admin-online");
    await admin.getByRole("button", { name: "More" }).click();
    await until(async () => (await rows.count()) >= many + 1);
    const names = await admin.locator(".item strong").allTextContents();
    expect(new Set(names).size).toBe(names.length);
    expect(names).toContain(l);
  });

  it("finds people by the beginning of a name or id, and shows their sessions", async () => {
    await admin.getByRole("searchbox").fill(l.slice(0, 2));
    await admin.getByRole("heading", { name: "Found" }).waitFor();
    await row(l).first().getByText(/online/).waitFor();
    await row(l).first().getByRole("button", { expanded: false }).click();
    await row(l).first().getByRole("cell", { name: "127.0.0.1" }).waitFor();
    await picture(admin, "admin-people");
  });

  it("looks into groups, takes members out, dissolves", async () => {
    await newGroup(lea, "Operated on", [mo]);
    await view("Groups");
    await admin.locator(".item-head").filter({ hasText: "Operated on" }).click();
    await admin.getByRole("heading", { name: "Operated on" }).waitFor();
    await admin.getByText("owner").waitFor();
    await picture(admin, "admin-group");
    await admin.locator(".member").filter({ hasText: mo }).getByRole("button", { name: "Remove" }).click();
    await sure(admin, "Yes, do it");
    await lea.getByText(`Halley removed ${mo}`).waitFor();
    await admin.locator(".member").filter({ hasText: mo }).waitFor({ state: "detached" });
    await admin.getByRole("button", { name: "Dissolve" }).click();
    await sure(admin, "Yes, do it");
    await lea.getByText("This group was dissolved.").waitFor();
    await admin.getByText("dissolved").first().waitFor();
  });

  it("tells everybody, and some into their inbox", async () => {
    await view("Broadcast");
    await admin.getByLabel("Text", { exact: true }).fill("The server restarts <b>at nine</b>.");
    await admin.getByRole("button", { name: "Send" }).click();
    await sure(admin, "Yes, do it");
    await admin.getByText(/^Accepted as/).waitFor();
    const notice = lea.getByRole("alert").filter({ hasText: "The server restarts <b>at nine</b>." });
    await notice.waitFor();
    await picture(lea, "admin-notice");
    await notice.getByRole("button", { name: "Close" }).click();
    await notice.waitFor({ state: "detached" });
    await admin.getByLabel("Some people, into their inbox").check();
    await admin.getByLabel(/^Ids/).fill(l);
    await admin.getByLabel("Text", { exact: true }).fill("Your room is booked.");
    await admin.getByRole("button", { name: "Send" }).click();
    await line(lea, "Halley").getByText("Your room is booked.").waitFor();
  });

  it("shows the cluster", async () => {
    await view("Cluster");
    await admin.getByText("alive").waitFor();
    await picture(admin, "admin-cluster");
  });

  it("kicks: the session ends, and is told why", async () => {
    await view("People");
    await admin.getByRole("searchbox").fill(l);
    await row(l).first().getByRole("button", { expanded: false }).click();
    await row(l).first().getByRole("button", { name: "Kick all sessions" }).click();
    await sure(admin, "Yes, do it");
    await lea.getByLabel("Your name").waitFor();
    await lea.getByRole("alert").filter({ hasText: "logged out by an administrator" }).waitFor();
  });
});
