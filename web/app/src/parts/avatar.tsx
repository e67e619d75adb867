import { hue, initials } from "../format.ts";

interface Props {
  name: string;
  small?: boolean;
  large?: boolean;
  /** A picture; those of this server, or that are all in their address, are shown. */
  image?: string | undefined;
  /** What the colour goes by, where the name may change. */
  of?: string;
}

/** A person's picture, or initials on a colour of their own. The name always stands beside it. */
export function Avatar({ name, small, large, image = "", of = name }: Props) {
  const size = small ? " small" : large ? " large" : "";
  // The pages' policy lets no others load.
  if (/^(data:image\/|\/(?!\/))/.test(image)) return <img class={`avatar${size}`} src={image} alt="" />;
  return (
    <span class={`avatar hue-${hue(of)}${size}`} aria-hidden="true">
      {initials(name)}
    </span>
  );
}
