import {useObservable} from '../lib/state.js';
import {setWish, wish} from '../lib/theme.js';

export function ThemeSwitch() {
  const now = useObservable(wish);
  return (
    <label class="theme">Colours <select value={now} onChange={(event) => setWish(event.currentTarget.value)}>
      <option value="auto">as the system</option>
      <option value="light">light</option>
      <option value="dark">dark</option>
    </select></label>
  );
}
