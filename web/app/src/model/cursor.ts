// What uids are made of, in the order in which servers compare them, and how long they can be.
const letters = "-.0123456789:@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
const longest = 64;

/** The last uid that can stand before one: lists go on behind a uid, so this one is asked for to begin with that one. */
export function justBefore(uid: string): string {
  const rest = uid.slice(0, -1);
  const lower = letters[letters.indexOf(uid.at(-1) ?? "") - 1];
  return lower === undefined ? rest : (rest + lower).padEnd(longest, "z");
}
