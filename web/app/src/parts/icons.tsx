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
    <path d="M4 12 20 4l-5 16-3.5-6.500L4 12Zm7.5 1.500L20 4" />
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
    <path d="M6 16V11a6 6 0 1 1 12 0v5l1.5 2h-15L6 16Zm4 4.500a2.2 2.2 0 0 0 4 0" />
  </Icon>
);
export const People = () => (
  <Icon>
    <circle cx="9" cy="8.5" r="3.5" />
    <path d="M2.5 20a6.5 6.5 0 0 1 13 0M16 5.300a3.5 3.5 0 0 1 0 6.400M18 14.500a6.5 6.5 0 0 1 3.5 5.5" />
  </Icon>
);
export const Hash = () => (
  <Icon>
    <path d="M9.5 4 7.5 20M16.5 4l-2 16M4.5 9h16M3.5 15h16" />
  </Icon>
);
export const Pulse = () => (
  <Icon>
    <path d="M3 12h4l2.5-7 5 14 2.5-7h4" />
  </Icon>
);
export const Sun = () => (
  <Icon>
    <circle cx="12" cy="12" r="4" />
    <path d="M12 2.500v2M12 19.500v2M2.5 12h2M19.5 12h2M5.3 5.300l1.4 1.400M17.3 17.300l1.4 1.400M5.3 18.700l1.4-1.400M17.3 6.700l1.4-1.4" />
  </Icon>
);
export const Moon = () => (
  <Icon>
    <path d="M20 14.500A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.500Z" />
  </Icon>
);
export const Chat = () => (
  <Icon>
    <path d="M4 6a2 2 0 0 1 2-2h12a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2h-7l-5 4v-4a2 2 0 0 1-2-2V6Z" />
  </Icon>
);

/** The comet. */
export const Logo = () => <img class="logo" src="./icon.svg" alt="" width="28" height="28" />;
export const Gear = () => (
  <Icon>
    <circle cx="12" cy="12" r="3" />
    <path d="M12 3v2.500M12 18.500V21M3 12h2.500M18.5 12H21M5.6 5.600l1.8 1.800M16.6 16.600l1.8 1.800M5.6 18.400l1.8-1.800M16.6 7.400l1.8-1.8" />
  </Icon>
);
export const Search = () => (
  <Icon>
    <circle cx="11" cy="11" r="6.5" />
    <path d="m16 16 4.5 4.5" />
  </Icon>
);
export const Back = () => (
  <Icon>
    <path d="M15 5l-7 7 7 7" />
  </Icon>
);
export const Down = () => (
  <Icon>
    <path d="M12 5v14M6 13l6 6 6-6" />
  </Icon>
);
export const Up = () => (
  <Icon>
    <path d="M12 19V5M6 11l6-6 6 6" />
  </Icon>
);
export const Dots = () => (
  <Icon>
    <circle cx="5.5" cy="12" r="1" />
    <circle cx="12" cy="12" r="1" />
    <circle cx="18.5" cy="12" r="1" />
  </Icon>
);
export const Smile = () => (
  <Icon>
    <circle cx="12" cy="12" r="8.5" />
    <path d="M8.5 14.500a4.2 4.2 0 0 0 7 0M9 9.700v.1M15 9.700v.1" />
  </Icon>
);
export const Reply = () => (
  <Icon>
    <path d="M10 6 4 12l6 6M4 12h9a7 7 0 0 1 7 7" />
  </Icon>
);
export const Forward = () => (
  <Icon>
    <path d="m14 6 6 6-6 6M20 12h-9a7 7 0 0 0-7 7" />
  </Icon>
);
export const Copy = () => (
  <Icon>
    <rect x="8.5" y="8.5" width="11" height="11" rx="2" />
    <path d="M15.5 5.500a1 1 0 0 0-1-1h-9a1 1 0 0 0-1 1v9a1 1 0 0 0 1 1" />
  </Icon>
);
export const Pen = () => (
  <Icon>
    <path d="m4.5 19.5 1-4.500L16 4.500l3.5 3.500L9 18.500l-4.5 1ZM13.5 7l3.5 3.5" />
  </Icon>
);
export const Undo = () => (
  <Icon>
    <path d="M8 5 4 9l4 4M4 9h10a5.5 5.5 0 0 1 0 11h-4" />
  </Icon>
);
export const Pin = () => (
  <Icon>
    <path d="M9 4h6l-.8 6.500L17 13.500H7l2.8-3L9 4ZM12 13.500V20" />
  </Icon>
);
export const Trash = () => (
  <Icon>
    <path d="M4.5 7h15M9.5 7V4.500h5V7M6.5 7l1 13h9l1-13M10.5 11v5M13.5 11v5" />
  </Icon>
);
export const Mute = () => (
  <Icon>
    <path d="M9 5.800A6 6 0 0 1 18 11v3M18 18H4.500L6 16v-5c0-.7.1-1.4.300-2M10 20.500a2.2 2.2 0 0 0 4 0M4 4l16 16" />
  </Icon>
);
export const Check = () => (
  <Icon>
    <path d="m5 12.5 4.5 4.500L19 7.5" />
  </Icon>
);
export const CheckTwice = () => (
  <Icon>
    <path d="m2.5 12.5 4.5 4.5 9-9.500M11.5 16l1 1 9-9.5" />
  </Icon>
);
export const Clock = () => (
  <Icon>
    <circle cx="12" cy="12" r="8.5" />
    <path d="M12 7.500V12l3 2" />
  </Icon>
);
export const Alert = () => (
  <Icon>
    <circle cx="12" cy="12" r="8.5" />
    <path d="M12 7.500v5.500M12 16.300v.1" />
  </Icon>
);
export const Person = () => (
  <Icon>
    <circle cx="12" cy="8.5" r="4" />
    <path d="M4.5 20.500a7.5 7.5 0 0 1 15 0" />
  </Icon>
);
export const PersonPlus = () => (
  <Icon>
    <circle cx="10" cy="8.5" r="4" />
    <path d="M3 20.500a7 7 0 0 1 13.5-2.500M19 10v6M16 13h6" />
  </Icon>
);
export const Horn = () => (
  <Icon>
    <path d="M4 10v4l11 5V5L4 10ZM15 9.500a2.7 2.7 0 0 1 0 5M7 15.5 8.5 20h3L10 16.7" />
  </Icon>
);
export const Eye = () => (
  <Icon>
    <path d="M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12Z" />
    <circle cx="12" cy="12" r="2.8" />
  </Icon>
);
export const Block = () => (
  <Icon>
    <circle cx="12" cy="12" r="8.5" />
    <path d="m6 6 12 12" />
  </Icon>
);
export const Broom = () => (
  <Icon>
    <path d="M19.5 4.5 13 11M9.5 9.500l5 5-3.5 6L3.5 13l6-3.500ZM7 15l-2 2M10 18l-1.5 1.5" />
  </Icon>
);
export const Minus = () => (
  <Icon>
    <path d="M5 12h14" />
  </Icon>
);
export const Phone = () => (
  <Icon>
    <path d="M6.5 3.500h3l1.5 4-2 1.500a12 12 0 0 0 6 6l1.5-2 4 1.500v3a2 2 0 0 1-2 2A15 15 0 0 1 4.5 5.500a2 2 0 0 1 2-2Z" />
  </Icon>
);
export const Hangup = () => (
  <Icon>
    <path d="M3 14.500c5-5 13-5 18 0l-2 2.500-3.500-1.500v-2.500a12 12 0 0 0-7 0v2.500L5 17l-2-2.500Z" />
  </Icon>
);
export const Camera = () => (
  <Icon>
    <path d="M3.5 7.500a2 2 0 0 1 2-2h8a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2h-8a2 2 0 0 1-2-2v-9ZM15.5 10.500l5-3v9l-5-3" />
  </Icon>
);
export const CameraOff = () => (
  <Icon>
    <path d="M8 5.500h5.5a2 2 0 0 1 2 2V13m0 3.500a2 2 0 0 1-2 2h-8a2 2 0 0 1-2-2v-9l.6-1.400M15.5 10.500l5-3v9l-5-3M3 3l18 18" />
  </Icon>
);
export const Mic = () => (
  <Icon>
    <path d="M12 3a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3ZM5.500 11a6.500 6.500 0 0 0 13 0M12 17.500V21" />
  </Icon>
);
export const MicOff = () => (
  <Icon>
    <path d="M9 6a3 3 0 0 1 6 0v5m-1 2.200A3 3 0 0 1 9 11V9M5.500 11a6.500 6.500 0 0 0 10.500 5.200M18.500 11a6.500 6.500 0 0 1-.8 3.200M12 17.500V21M3 3l18 18" />
  </Icon>
);
export const Speaker = () => (
  <Icon>
    <path d="M4 9.500v5h3.500L12 18.500v-13L7.500 9.500H4ZM15 9a4.200 4.200 0 0 1 0 6M17.500 6.500a7.800 7.800 0 0 1 0 11" />
  </Icon>
);
export const Screen = () => (
  <Icon>
    <path d="M3.500 5.500h17v11h-17v-11ZM9 20h6M12 16.500V20M12 13.500v-5m-2 2 2-2 2 2" />
  </Icon>
);
export const Expand = () => (
  <Icon>
    <path d="M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5" />
  </Icon>
);
export const Shrink = () => (
  <Icon>
    <path d="M9 4v5H4M15 4v5h5M9 20v-5H4M15 20v-5h5" />
  </Icon>
);
export const Turn = () => (
  <Icon>
    <path d="M4 12a8 8 0 0 1 14-5.300L20 9m0-5v5h-5M20 12a8 8 0 0 1-14 5.300L4 15m0 5v-5h5" />
  </Icon>
);
