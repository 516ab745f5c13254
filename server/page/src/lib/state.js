// Small observable values: what several parts of the page show.
import {useEffect, useState} from 'preact/hooks';

export function observable(value) {
  const listeners = new Set();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const listener of [...listeners]) listener(value);
    },
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

export function useObservable(source) {
  const [, redraw] = useState(0);
  useEffect(() => source.listen(() => redraw((count) => count + 1)), [source]);
  return source.get();
}

/** The time now, again every `period` milliseconds while the page is seen. */
export function useNow(period = 1000) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => { if (!document.hidden) setNow(Date.now()); }, period);
    return () => clearInterval(timer);
  }, [period]);
  return now;
}
