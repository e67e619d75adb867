const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const exact = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });

/** 14:05 */
export function time(ms: number): string {
  return clock.format(ms);
}

/** 14:05:09.123 */
export function exactTime(ms: number): string {
  return exact.format(ms);
}

/** < 1 ms, 12 ms, 1.3 s */
export function duration(ms: number): string {
  if (ms < 1) return "< 1 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(1)} s`;
}

/** "lobby" of "chat://lobby"; the whole name where the type is another. */
export function roomLabel(room: string): string {
  return room.startsWith(defaultType) ? room.slice(defaultType.length) : room;
}

/** "chat://lobby" of "lobby"; what has a type keeps it. */
export function roomName(label: string): string {
  const name = label.trim();
  return name.includes("://") ? name : defaultType + name;
}

const defaultType = "chat://";

/** A small number that stays the same for a name, to pick a colour by. */
export function hue(name: string): number {
  let h = 0;
  for (const c of name) h = (h * 31 + (c.codePointAt(0) ?? 0)) >>> 0;
  return h % 8;
}

/** One or two letters for a name. */
export function initials(name: string): string {
  const parts = name.split(/[\s._@:()[\]（）"“”-]+/).filter(Boolean);
  const [first = "?", second] = parts;
  const letters = [...first][0] ?? "?";
  return (second ? letters + ([...second][0] ?? "") : letters).toUpperCase();
}

/** What a body of any JSON looks like as text. */
export function bodyText(body: unknown): string {
  return typeof body === "string" ? body : JSON.stringify(body, null, 1);
}
