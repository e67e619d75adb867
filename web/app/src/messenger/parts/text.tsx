import { tokenize } from "linkifyjs";
import type { ComponentChildren, VNode } from "preact";
import { mentionsIn } from "../mention.ts";

const emojiOnly = new RegExp("^(?:\\p{RGI_Emoji}|\\s){1,12}$", "v");
const mostBig = 4;

/** Whether a text is nothing but a few emoji, which are shown large. */
export function isBig(text: string): boolean {
  if (!emojiOnly.test(text) || text.trim() === "") return false;
  return [...new Intl.Segmenter().segment(text.replaceAll(/\s/g, ""))].length <= mostBig;
}

/**
 * A message's text: what looks like an address of the web or of mail is a link, names of those whom it mentions stand
 * out. Nothing of it is ever markup: all is put into text nodes and attributes whose schemes are known.
 */
export function Text({ text, mentions = [] }: { text: string; mentions?: readonly { name: string; me: boolean }[] }) {
  const parts: ComponentChildren[] = [];
  for (const token of tokenize(text)) {
    const href = token.isLink ? safe(token.toHref("https")) : undefined;
    if (href) {
      parts.push(
        <a href={href} target="_blank" rel="noopener noreferrer nofollow">
          {token.toString()}
        </a>,
      );
    } else parts.push(...withMentions(token.toString(), mentions));
  }
  return <>{parts}</>;
}

/** The address if a click on it can't do harm. */
export function safe(href: string): string | undefined {
  return URL.canParse(href) && ["http:", "https:", "mailto:"].includes(new URL(href).protocol) ? href : undefined;
}

function withMentions(text: string, mentions: readonly { name: string; me: boolean }[]): (string | VNode)[] {
  const parts: (string | VNode)[] = [];
  let from = 0;
  for (const { start, end, who } of mentionsIn(text, mentions)) {
    parts.push(text.slice(from, start), <span class={who.some(({ me }) => me) ? "mention me" : "mention"}>{text.slice(start, end)}</span>);
    from = end;
  }
  return [...parts, text.slice(from)];
}
