// Loss curves as charts draw them.
import {number} from './format.js';

/** A curve: {id, label, order (place on the scale of depth), xs, ys}. */

/** From the report: at most 256 means of consecutive steps for each layer. */
export function reportCurves(layers, numSteps) {
  return layers.filter((layer) => layer.loss_curve?.length > 1).map((layer) => {
    const width = numSteps > 0 ? numSteps / layer.loss_curve.length : 1;
    return {
      id: `layer-${layer.layer}`,
      label: `layer ${layer.layer}`,
      order: layer.layer,
      xs: layer.loss_curve.map((_, index) => Math.round((index + 1) * width)),
      ys: layer.loss_curve.map(number),
    };
  });
}

/** Positive finite values alone, for an axis of decades. */
export function positive(values) {
  return values.map((value) => (value !== null && value > 0 && Number.isFinite(value) ? value : null));
}

/** The curves over one axis: [xs, ys of the first, ...], null where a curve has no point. */
export function align(curves) {
  const all = [...new Set(curves.flatMap((curve) => curve.xs))].sort((a, b) => a - b);
  const place = new Map(all.map((x, index) => [x, index]));
  return [all, ...curves.map((curve) => {
    const ys = new Array(all.length).fill(null);
    const good = positive(curve.ys);
    curve.xs.forEach((x, index) => { ys[place.get(x)] = good[index]; });
    return ys;
  })];
}

const steps = [1, 2, 5];

/** Ends of an axis of decades: the nearest of 1, 2, 5 times a power of ten below and above. */
export function decadeRange(low, high) {
  if (!(low > 0) || !(high > 0)) return [0.1, 1];
  const near = (value) => {
    const power = Math.floor(Math.log10(value) + 1e-9);
    return [...steps, 10].map((step) => Number(`${step}e${power}`));  // as text: a product would not be the same number
  };
  const down = (value) => near(value).findLast((mark) => mark <= value * (1 + 1e-9)) ?? near(value)[0];
  const up = (value) => near(value).find((mark) => mark >= value * (1 - 1e-9)) ?? near(value)[3];
  const bottom = down(low);
  let top = up(high);
  if (top <= bottom * 1.5) top = up(bottom * 2);
  return [bottom, top];
}

/** Marks between the ends: powers of ten, with 2 and 5 times them where there are few decades. */
export function decadeMarks(low, high) {
  const marks = [];
  const few = Math.log10(high / low) <= 2.5;
  for (let power = Math.floor(Math.log10(low) + 1e-9); power <= Math.ceil(Math.log10(high)); ++power) {
    for (const step of few ? steps : [1]) {
      const mark = Number(`${step}e${power}`);
      if (mark >= low * (1 - 1e-9) && mark <= high * (1 + 1e-9)) marks.push(mark);
    }
  }
  return marks;
}

export function decadeText(value) {
  if (value === null || value === undefined) return '';
  if (value >= 0.1 && value < 10000) return String(Number(value.toPrecision(3)));
  const [mantissa, power] = value.toExponential().split('e');
  const digits = Number(power).toString().replace('-', '⁻').replace(/\d/g, (digit) => '⁰¹²³⁴⁵⁶⁷⁸⁹'[digit]);
  const rounded = Number(Number(mantissa).toPrecision(2));
  return rounded === 1 ? `10${digits}` : `${rounded}·10${digits}`;
}
