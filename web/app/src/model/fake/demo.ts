// A small town to look at: people, groups, a history of a hundred thousand messages, somebody who answers.
import type { Entry } from "../types.ts";
import { type FakeConversation, World } from "./world.ts";

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

const people: [string, string][] = [
  ["ann", "Ann Halley"],
  ["edmond", "Edmond"],
  ["caroline", "Caroline Herschel"],
  ["lixiaolong", "李小龙"],
  ["wangfang", "王芳"],
  ["maria", "Maria Mitchell"],
  ["tycho", "Tycho"],
  ["vera.rubin", "Vera Rubin"],
  ["zhangheng", "张衡"],
  ["hypatia", "Hypatia"],
  ["galileo", "Galileo"],
  ["cecilia", "Cecilia Payne"],
  ["subra", "Subrahmanyan"],
  ["jocelyn", "Jocelyn Bell"],
];

const talk = [
  "Did you see the comet last night?",
  "Yes! Low in the west, just after sunset ☄️",
  "今晚天气很好，适合观测。",
  "The seeing was terrible here. Clouds from nine o’clock on.",
  "I’ve put the plates on the shelf by the window.",
  "Somebody left the dome open again…",
  "刚刚把照片传到文件夹里了。",
  "https://en.wikipedia.org/wiki/Halley%27s_Comet says it will be back in 2061.",
  "I’ll be a hundred and four then 😄",
  "好的，明天见！",
  "Two tails: one of dust, one of gas. The second always points straight away from the sun, whatever way the comet goes.",
  "👍",
  "Can we move tomorrow’s meeting to half past ten?",
  "Fine with me.",
  "收到。",
  "What exposure did you take?",
  "Thirty seconds at f/4, stacked forty of them.",
  "🌌✨",
];

export function demoWorld(start = Date.now()): World {
  let clock = start;
  const w = new World(() => clock);
  for (const [uid, name] of people) w.user(uid, name);
  const after = (ms: number) => (clock = start - ms);

  after(40 * day);
  for (const uid of ["edmond", "caroline", "lixiaolong", "wangfang", "maria", "vera.rubin", "cecilia", "jocelyn"]) w.befriend("ann", uid);
  w.setContact("ann", { ...w.contacts.get("ann")!.get("edmond")!, remark: "Edmond (office)" });
  w.setContact("ann", { uid: "zhangheng", state: "asked", remark: "", note: "你好，我是张衡，想和你聊聊地动仪。", changedAt: start - hour });
  w.setContact("zhangheng", { uid: "ann", state: "requested", remark: "", note: "", changedAt: start - hour });
  w.setContact("ann", { uid: "galileo", state: "requested", remark: "", note: "Hello, I’m Ann.", changedAt: start - 2 * day });

  // A long history, made up as it is looked at.
  const archive = w.make("g/0190-archive", { title: "Observatory log", owner: "tycho", joinPolicy: "by_admins" });
  for (const [i, [uid]] of people.entries()) w.join(archive, uid, uid === "tycho" ? "owner" : i < 3 ? "admin" : "member");
  const names = people.map(([uid]) => uid);
  const many = 100_000;
  archive.last = archive.lastMessage = many;
  archive.made = (seq) => (seq <= many ? madeUp(seq, names[hash(seq) % names.length]!, start - 3 * hour - (many - seq) * 7 * minute) : undefined);
  for (const m of archive.members.values()) m.readSeq = m.uid === "ann" ? many : many - (hash(m.uid.length * 7919 + m.uid.charCodeAt(0)) % 40);

  after(3 * day);
  const book = w.direct("ann", "cecilia");
  w.say(book, "cecilia", { text: "Stars are made of hydrogen, mostly. Nobody wants to believe it." });
  w.say(book, "ann", { text: "Write it down anyway." });
  after(2 * day);
  w.say(w.direct("ann", "maria"), "ann", { text: "Did the medal from Copenhagen arrive?" });
  w.say(w.direct("ann", "maria"), "maria", { text: "It did! It’s heavier than it looks 🏅" });

  after(26 * hour);
  const fang = w.direct("ann", "wangfang");
  w.say(fang, "wangfang", { text: "周末一起去爬山吗？" });
  w.say(fang, "ann", { text: "好啊！几点出发？" });
  w.say(fang, "wangfang", { text: "早上七点，在地铁口见。记得带水 🥾" });

  after(9 * hour);
  const team = w.make("g/0191-comet", { title: "Comet watch ☄️", owner: "ann", announcement: "Clear skies forecast for Saturday. Bring warm clothes, red torches only!" });
  for (const uid of ["ann", "edmond", "caroline", "lixiaolong", "maria", "tycho", "jocelyn"]) w.join(team, uid, uid === "ann" ? "owner" : uid === "caroline" ? "admin" : "member");
  w.store(team, { kind: "created", from: "ann", members: ["edmond", "caroline", "lixiaolong", "maria", "tycho"], info: { title: "Comet watch ☄️" } });
  after(8 * hour);
  w.say(team, "caroline", { text: "I swept the western sky from dusk on. Nothing new, but the old one is brighter than yesterday." });
  w.say(team, "caroline", { text: "Magnitude 3.1 by my estimate." });
  after(8 * hour - 4 * minute);
  const question = w.say(team, "edmond", { text: "Where exactly? I’d like to check it against the ephemeris: https://ssd.jpl.nasa.gov/horizons/" });
  after(7 * hour);
  w.say(team, "caroline", { text: "RA 16h 42m, Dec −8° 30′. Easy to find below Ophiuchus.", reply: { seq: question.seq, from: "edmond", text: "Where exactly? I’d like to check it against the ephemeris" } });
  w.store(team, { kind: "joined", from: "ann", members: ["jocelyn"] });
  const plan = w.say(team, "ann", { text: "Saturday at the hill then? I bring the 80 mm and tea. 🫖" });
  w.store(team, { kind: "reaction", from: "edmond", target: plan.seq, reaction: "👍" });
  w.store(team, { kind: "reaction", from: "maria", target: plan.seq, reaction: "👍" });
  w.store(team, { kind: "reaction", from: "ann", target: plan.seq, reaction: "❤️" });
  w.store(team, { kind: "pin", from: "caroline", target: plan.seq });
  after(3 * hour);
  w.say(team, "lixiaolong", { text: "我也去！需要我带双筒望远镜吗？" });
  const oops = w.say(team, "tycho", { text: "wrong window" });
  w.store(team, { kind: "recall", from: "tycho", target: oops.seq });
  const yes = w.say(team, "ann", { text: "要的要的，谢谢！" });
  w.store(team, { kind: "edit", from: "ann", target: yes.seq, body: { text: "要的，谢谢 @李小龙 ！" }, mentions: ["lixiaolong"] });
  after(25 * minute);
  w.say(team, "jocelyn", { text: "☄️🔭" });
  w.read(team, "ann");
  for (const uid of ["edmond", "caroline", "maria"]) w.read(team, uid);
  w.say(team, "maria", { text: "@Ann Halley can you pick me up at the station? My train comes in at 18:40." }, { mentions: ["ann"] });
  w.say(team, "edmond", { text: "I can take one more in my car, too." });

  after(5 * hour);
  const li = w.direct("ann", "lixiaolong");
  w.say(li, "lixiaolong", { text: "望远镜已经装好了，你要来看看吗？" });
  w.read(li, "ann");

  after(70 * minute);
  const edmond = w.direct("ann", "edmond");
  w.say(edmond, "edmond", { text: "The orbit fits: a bit over seventy-five years." });
  w.say(edmond, "edmond", { text: "It must be the same one that Kepler saw in 1607." });
  w.say(edmond, "ann", { text: "And Apian in 1531!" });
  w.say(edmond, "ann", { text: "So it will come back at the end of 1758. Neither of us will see it, but somebody will remember that you said so first." });
  w.say(edmond, "edmond", { text: "Then let’s tell everybody.", forwarded: { from: "caroline" } });
  w.say(edmond, "ann", { text: "🎉" });
  w.read(edmond, "ann");
  w.read(edmond, "edmond");
  const inbox = w.make("i/ann");
  w.join(inbox, "ann");
  w.say(inbox, "", { text: "Welcome to Halley. Your account is ready." });
  w.read(inbox, "ann");

  after(6 * minute);
  const vera = w.direct("ann", "vera.rubin");
  w.say(vera, "vera.rubin", { text: "The rotation curve is flat. All the way out!" });
  w.say(vera, "vera.rubin", { text: "Something is there that we can’t see." });

  after(50 * day);
  const quiet = w.make("g/0192-board", { title: "公告与活动", owner: "tycho", muteAll: true });
  for (const uid of ["tycho", "ann", "edmond", "wangfang"]) w.join(quiet, uid, uid === "tycho" ? "owner" : "member");
  after(4 * hour);
  for (let i = 0; i < 12; i++) w.say(quiet, "tycho", { text: `公告 ${i + 1}：请大家按时参加例会。` });

  clock = start;
  w.set("ann", team.id, { pin: true });
  w.set("ann", quiet.id, { mute: true });
  w.set("ann", li.id, { draft: "好的，我晚上八点" });
  for (const [uid] of people) w.setPresence(uid, ["edmond", "caroline", "vera.rubin", "ann", "wangfang"].includes(uid), start - (hash(uid.charCodeAt(0)) % 900) * minute);
  team.requests.set("hypatia", { conversation: team.id, uid: "hypatia", note: "Edmond told me about you.", state: "asked" });
  w.now = Date.now;
  return w;
}

/** Lets the others answer what ann says. */
export function enliven(w: World, wait = 900): void {
  w.onMessage = (c: FakeConversation, entry: Entry) => {
    if (entry.from !== "ann" || c.dissolved) return;
    const others = [...c.members.keys()].filter((uid) => uid !== "ann");
    const who = others[entry.seq % others.length];
    if (!who || w.presences.get(who)?.online === false) return;
    setTimeout(() => w.read(c, who, entry.seq), wait);
    setTimeout(() => w.type(c, who, true), wait * 1.5);
    setTimeout(() => w.say(c, who, { text: talk[hash(entry.seq) % talk.length]! }), wait * 4);
  };
}

function madeUp(seq: number, from: string, serverTime: number): Entry {
  const text = `${talk[hash(seq * 31) % talk.length]!}${seq % 5 === 0 ? ` ${talk[hash(seq * 17) % talk.length]!}` : ""}`;
  return {
    seq,
    kind: "message",
    from,
    clientMsgId: "",
    serverTime,
    msgNo: seq,
    changedSeq: seq,
    target: 0,
    body: { text: seq % 10 === 0 ? `#${seq} ${text}` : text },
    mentions: [],
    mentionAll: false,
    members: [],
    role: "",
    mutedUntil: 0,
    reaction: "",
    off: false,
    info: undefined,
    edited: false,
    recalled: false,
    pinned: false,
    reactions: seq % 37 === 0 ? [{ reaction: "👍", count: 2, uids: ["edmond", "caroline"] }] : [],
  };
}

function hash(n: number): number {
  let x = Math.imul(n ^ 0x9e3779b9, 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}
