import { hue, initials } from "../format.ts";

/** A person's initials on a colour of their own. The name always stands beside it. */
export function Avatar({ name, small }: { name: string; small?: boolean }) {
  return (
    <span class={`avatar hue-${hue(name)}${small ? " small" : ""}`} aria-hidden="true">
      {initials(name)}
    </span>
  );
}
