// Decodes instruction words by the instruction set's own tables, which the program carries.

export class Isa {
  // isa: of the payload's header.
  constructor(isa) {
    this.time = isa.time;
    this.enums = isa.enums;
    this.opBits = isa.op_bits;
    this.delayBits = isa.delay_bits;
    this.ops = operations(isa.ops);
    this.linkOps = operations(isa.link_ops); // in a link's queue these stand for others of the same number
  }

  // The instruction in a word: {op, engine, delay, and its fields by name, enumerations as their names}.
  // unit: the kind of unit that its queue feeds.
  decode(bytes, unit) {
    const code = bitsAt(bytes, 0, this.opBits);
    const op = (unit === "C2C" && this.linkOps.get(code)) || this.ops.get(code);
    const found = { op: op.name, engine: op.engine, delay: bitsAt(bytes, this.opBits, this.delayBits) };
    let at = this.opBits + this.delayBits;
    for (const field of op.fields) {
      let value = bitsAt(bytes, at, field.bits);
      at += field.bits;
      if (field.signed && value >> (field.bits - 1)) value -= 1 << field.bits;
      found[field.name] = field.kind ? this.enums[field.kind][value] : value;
    }
    return found;
  }

  fieldsOf(op) {
    return [...this.ops.values(), ...this.linkOps.values()].find((one) => one.name === op).fields;
  }
}

// `count` bits (at most 24) from bit `at` on, the lowest first.
export function bitsAt(bytes, at, count) {
  let value = 0;
  for (let n = 0; n < count; n++) {
    const bit = at + n;
    value |= ((bytes[bit >> 3] >> (bit & 7)) & 1) << n;
  }
  return value;
}

function operations(table) {
  return new Map(Object.entries(table).map(([code, [name, engine, fields]]) => [Number(code), {
    name, engine,
    fields: fields.map(([field, bits, signed, kind, doc]) => ({ name: field, bits, signed, kind, doc })),
  }]));
}
