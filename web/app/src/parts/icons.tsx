import type { ComponentChildren } from "preact";

/** All icons are decoration: what they stand beside, or their button's label, says what they mean. */
function Icon({ children }: { children: ComponentChildren }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}

export const Send = () => (
  <Icon>
    <path d="M4 12 20 4l-5 16-3.500-6.500L4 12Zm7.500 1.500L20 4" />
  </Icon>
);
export const Plus = () => (
  <Icon>
    <path d="M12 5v14M5 12h14" />
  </Icon>
);
export const Leave = () => (
  <Icon>
    <path d="M10 4H6a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h4M15 8l4 4-4 4m4-4H9" />
  </Icon>
);
export const Close = () => (
  <Icon>
    <path d="M6 6l12 12M18 6 6 18" />
  </Icon>
);
export const Bell = () => (
  <Icon>
    <path d="M6 16V11a6 6 0 1 1 12 0v5l1.500 2h-15L6 16Zm4 4.500a2.200 2.200 0 0 0 4 0" />
  </Icon>
);
export const People = () => (
  <Icon>
    <circle cx="9" cy="8.500" r="3.500" />
    <path d="M2.500 20a6.500 6.500 0 0 1 13 0M16 5.300a3.500 3.500 0 0 1 0 6.400M18 14.500a6.500 6.500 0 0 1 3.500 5.500" />
  </Icon>
);
export const Hash = () => (
  <Icon>
    <path d="M9.500 4 7.500 20M16.500 4l-2 16M4.500 9h16M3.500 15h16" />
  </Icon>
);
export const Pulse = () => (
  <Icon>
    <path d="M3 12h4l2.500-7 5 14 2.500-7h4" />
  </Icon>
);
export const Sun = () => (
  <Icon>
    <circle cx="12" cy="12" r="4" />
    <path d="M12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M5.300 18.700l1.400-1.400M17.300 6.700l1.400-1.400" />
  </Icon>
);
export const Moon = () => (
  <Icon>
    <path d="M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500Z" />
  </Icon>
);
export const Chat = () => (
  <Icon>
    <path d="M4 6a2 2 0 0 1 2-2h12a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2h-7l-5 4v-4a2 2 0 0 1-2-2V6Z" />
  </Icon>
);

/** The comet. */
export const Logo = () => <img class="logo" src="./icon.svg" alt="" width="28" height="28" />;
