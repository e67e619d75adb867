// By pinyin, as Chinese collation sorts: the last of these characters that isn't behind a name is its letter.
const pinyin = "阿八嚓哒妸发旮哈讥咔垃妈拿噢妑七呥扨它穵夕丫帀";
const letters = "ABCDEFGHJKLMNOPQRSTWXYZ";
const chinese = new Intl.Collator("zh-CN");

/** The letter under which a name stands. */
export function initialOf(name: string): string {
  const first = [...name.normalize("NFD")][0] ?? "#";
  if (/[a-z]/i.test(first)) return first.toUpperCase();
  if (!/\p{Script=Han}/u.test(first)) return "#";
  let letter = "#";
  for (let i = 0; i < pinyin.length; i++) if (chinese.compare(pinyin[i]!, first) <= 0) letter = letters[i]!;
  return letter;
}
