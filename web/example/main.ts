// The smallest chat client: open /?me=ann&to=bob in one window and /?me=bob&to=ann in another.
import { Chat, directId, type Outgoing, peerOf, Timeline } from "@halley-im/sdk";

const query = new URLSearchParams(location.search);
const me = query.get("me") ?? "ann";
const [status, list, messages, form] = ["p", "nav", "ol", "form"].map((s) => document.querySelector(s) as HTMLElement);
let open = directId(me, query.get("to") ?? "bob");
let timeline = new Timeline();

// Who may log in, and where to: your backend says. This is what `halley all` has for trying.
async function logIn() {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch("/v1/demo/login", { method: "POST", headers, body: JSON.stringify({ name: me }) });
  return (await response.json()) as { token: string; endpoints: { ws: string }[] };
}

const chat = new Chat({
  account: me,
  url: async () => (await logIn()).endpoints[0]?.ws ?? "",
  token: async () => (await logIn()).token,
});

chat.on("state", ({ name }) => (status!.textContent = `${me} is ${name}`));
chat.on("conversations", showList);
chat.on("gone", showList);
chat.on("outgoing", showMessages);
chat.on("entries", (what) => {
  if (what.conversation !== open) return;
  timeline.take(what);
  showMessages();
  chat.read(open);
});

async function show(conversation: string) {
  open = conversation;
  timeline = new Timeline();
  showMessages();
  timeline.add(await chat.history(conversation));
  showMessages();
  chat.read(conversation);
}

function showList() {
  list!.replaceChildren(
    ...chat.conversations.map((c) => {
      const button = document.createElement("button");
      button.textContent = `${c.title || peerOf(c.id, me)}${c.unread ? ` (${c.unread})` : ""}`;
      button.onclick = () => void show(c.id);
      return button;
    }),
  );
}

function line(from: string, body: unknown, note: string) {
  const li = document.createElement("li");
  li.toggleAttribute("data-mine", from === me);
  // textContent: what others send is text, never HTML.
  li.textContent = `${from}: ${typeof body === "string" ? body : JSON.stringify(body)} `;
  const small = document.createElement("small");
  small.textContent = note;
  li.append(small);
  return li;
}

function showMessages() {
  const stored = timeline.entries.filter((e) => e.kind === "message");
  const unsent = chat.outgoing.filter((o): o is Outgoing<"message.send"> => o.conversation === open && o.method === "message.send");
  messages!.replaceChildren(
    ...stored.map((e) => line(e.from, e.recalled ? "recalled" : e.body, new Date(e.serverTime).toLocaleTimeString())),
    ...unsent.map((o) => line(me, o.params.body, o.stage)),
  );
}

form!.onsubmit = (event) => {
  event.preventDefault();
  const input = (form as HTMLFormElement).elements.namedItem("text") as HTMLInputElement;
  if (input.value) chat.send(open, input.value);
  input.value = "";
};

chat.start();
void show(open);
