// What a burst does, in words and in the fields of its instruction.

const FORMATS = { I32: "", LO16: ".lo16", HI16: ".hi16", B0: ".byte0", B1: ".byte1", B2: ".byte2", B3: ".byte3" };
const FUNCTIONS = { BITLEN: "bit length of", RECIP: "1 ÷", RSQRT: "1 ÷ √", SIGMOID: "sigmoid", LOG2: "log₂" };
const ALUS = { ADD: "+", SUB: "−", AND: "and", ANDN: "and not", OR: "or", XOR: "xor", LT: "<", GT: ">", EQ: "=" };

// One line: what the burst does, with its addresses; element: which of its elements to name, or none.
export function sentence(burst, header) {
  const i = burst.instr;
  switch (burst.op) {
    case "READ":
      return `reads ${quads(burst, header)} → ${i.weights ? `weight stream ${i.weights}, outward` : `stream ${i.dir}`}`;
    case "WRITE":
      return `writes what stream ${i.dir} brings to ${quads(burst, header)}`;
    case "INDEX":
      return `loads index register ${i.index} from stream ${i.dir}: it addresses what is read next`;
    case "LOAD":
      return `holds ${vectors(burst.count)} of int8 in activation ${range(i.act, burst.count)}`;
    case "MAC":
      return `multiplies activation ${range(i.act, i.acts)} by the weights that stream past, `
        + `${i.accs} accumulator step${i.accs > 1 ? "s" : ""}${i.wfmt === "INT4" ? ", int4" : ""}`;
    case "DRAIN":
      return `sends the sums of accumulator ${range(i.acc, burst.count)} back inward`;
    case "SEND":
      return `sends ${vectors(burst.count)} to the chip beside, over ports ${i.ports.toString(2)}`;
    case "RECEIVE":
      return `takes ${vectors(burst.count)} from the chip beside, over port ${i.port}`;
    case "ALU":
      return `${formula(i)}${times(burst.count)}`;
    case "PERMUTE":
      return `exchanges lanes by map ${i.map}${times(burst.count)}`;
    case "SHIFT":
      return i.distribute ? `spreads lane ${i.lane} over all lanes${times(burst.count)}`
        : `rotates lanes by ${i.lane}${times(burst.count)}`;
    case "REDUCE":
      return `${{ SUM: "adds up", MAX: "finds the greatest of", MIN: "finds the least of" }[i.red] ?? "reduces"} `
        + `${1 << i.segment} lanes${times(burst.count)}`;
    default:
      return burst.op;
  }
}

function times(count) {
  return count > 1 ? `, for ${vectors(count)}` : "";
}

function vectors(count) {
  return count === 1 ? "a vector" : `${count} vectors`;
}

function range(first, count) {
  return count > 1 ? `${first}..${first + count - 1}` : `${first}`;
}

// Addresses of a MEM burst with the tensor that lies there: "quads 12..19 (weights wo)".
export function quads(burst, header) {
  const i = burst.instr, first = i.addr + burst.offset, last = first + (burst.count - 1) * i.stride;
  const where = last === first ? `quad ${first}` : `quads ${first}..${last}`;
  const name = tensorAt(burst.queue.slice(4), first, header);
  const indexed = i.index ? " + index" : "";
  return `${where}${indexed}${name ? ` (${name})` : ""}`;
}

// The tensor at a quad of a slice.
export function tensorAt(slice, quad, header) {
  for (const [name, [where, addr, count, stride]] of Object.entries(header.symbols)) {
    if (where !== slice) continue;
    const layers = stride ? header.model.layers : 1;
    for (let layer = 0; layer < layers; layer++) {
      const first = addr + layer * stride;
      if (quad >= first && quad < first + count) {
        return name.replace(new RegExp(` ${slice}$`), "") + (stride ? `, layer ${layer + 1}` : "");
      }
    }
  }
  return "";
}

// A VXM operation: y = sat(func(a >> pre, b) >> post alu c) → where it goes.
export function formula(i) {
  const a = shifted(operand(i, "a"), i.pre + 0, i), b = operand(i, "b"), c = operand(i, "c");
  let y = i.func === "PASS" ? a
    : i.func === "MUL" ? `${a} × ${b}`
    : i.func === "SQUARE" ? `(${a})²`
    : i.func === "EXP2" ? `2^(${a} − ${c})`
    : `${FUNCTIONS[i.func]} ${a}`;
  const post = [i.post ? `${i.post}` : "", i.er_use === "POST" ? `${i.er_neg ? "−" : ""}exp${i.er}` : ""].filter(Boolean);
  if (post.length) y = `(${y}) >> ${post.join(" + ")}`;
  if (i.func !== "EXP2") {
    if (i.alu === "MIN" || i.alu === "MAX") y = `${i.alu.toLowerCase()}(${y}, ${c})`;
    else if (i.alu === "RSUB") y = `${c} − ${y}`;
    else if (i.alu === "INDEX") y = `lane number where ${y} ≥ ${c}`;
    else if (ALUS[i.alu] && !(c === "0" && i.alu === "ADD")) y = `${y} ${ALUS[i.alu]} ${c}`;
  }
  if (i.sat !== "S32") y = `int${i.sat.slice(1)}(${y})`;
  const to = [i.dst_w ? "stream W" : "", i.dst_e ? "stream E" : "", i.rf_we ? `r${i.rf}` : "", i.er_we ? `exp${i.er_dst}` : ""];
  if (i.red !== "NONE") to.push(`${{ SUM: "sum", MAX: "max", MIN: "min", MAXABS: "max |y|" }[i.red]} of all${i.red_e ? " to stream E" : ""}`);
  return `${y} → ${to.filter(Boolean).join(", ") || "nowhere"}`;
}

function shifted(text, pre, i) {
  const amount = [pre ? `${Math.abs(pre)}` : "", i.er_use === "PRE" ? `${i.er_neg ? "−" : ""}exp${i.er}` : ""].filter(Boolean);
  return amount.length ? `${text} ${pre < 0 ? "<<" : ">>"} ${amount.join(" + ")}` : text;
}

function operand(i, name) {
  const source = i[`${name}_src`], format = FORMATS[i[`${name}_fmt`]] ?? "";
  if (source === "IMM") return `${i.imm}`;
  if (source === "IOTA") return "lane";
  if (source === "RF") return `r${i[`${name}_rf`]}${i[`${name}_inc`] ? "+" : ""}${format}`;
  return `${source}${format}`;
}

// The fields of an instruction that say something: [name, value, meaning].
export function fieldList(burst, isa) {
  return isa.fieldsOf(burst.op)
    .map((field) => [field.name, burst.instr[field.name], field.doc])
    .filter(([, value]) => value !== 0 && value !== "NONE" && value !== "IMM" && value !== "I32");
}
