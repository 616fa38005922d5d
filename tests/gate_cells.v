// Models of the ECP5 cells that are black boxes in yosys' share/ecp5, in the modes that synth_ecp5 makes use of.

// Block RAM of 2,048 bytes of 9 bits. Each port has a width: 1, 2 or 4 (bits of the lower 8 of a byte), 9, 18, or 36,
// where port A writes what stands on DIB and DIA, and port B reads to DOB and DOA. Addresses count bits; at 18 and 36
// the lowest ones enable bytes of a write. Outputs are registered once. A port that writes keeps its output (WRITEMODE
// "NORMAL"), shows the new word ("WRITETHROUGH") or the old one ("READBEFOREWRITE").
//
// A byte that one port reads while the other writes it is undefined; here it is the complement of what it was, so that
// a netlist which depends on it fails.
module DP16KD (
    input CLKA, CEA, OCEA, WEA, RSTA, CSA0, CSA1, CSA2, CLKB, CEB, OCEB, WEB, RSTB, CSB0, CSB1, CSB2,
    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3,
    DIA2, DIA1, DIA0,
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3,
    DIB2, DIB1, DIB0,
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3,
    DOA2, DOA1, DOA0,
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3,
    DOB2, DOB1, DOB0
);
  parameter DATA_WIDTH_A = 18;
  parameter DATA_WIDTH_B = 18;
  parameter REGMODE_A = "NOREG";
  parameter REGMODE_B = "NOREG";
  parameter RESETMODE = "SYNC";
  parameter ASYNC_RESET_RELEASE = "SYNC";
  parameter CSDECODE_A = "0b000";
  parameter CSDECODE_B = "0b000";
  parameter CLKAMUX = "CLKA";
  parameter CLKBMUX = "CLKB";
  parameter WRITEMODE_A = "NORMAL";
  parameter WRITEMODE_B = "NORMAL";
  parameter GSR = "ENABLED";
  parameter [319:0] INITVAL_00 = 0;
  parameter [319:0] INITVAL_01 = 0;
  parameter [319:0] INITVAL_02 = 0;
  parameter [319:0] INITVAL_03 = 0;
  parameter [319:0] INITVAL_04 = 0;
  parameter [319:0] INITVAL_05 = 0;
  parameter [319:0] INITVAL_06 = 0;
  parameter [319:0] INITVAL_07 = 0;
  parameter [319:0] INITVAL_08 = 0;
  parameter [319:0] INITVAL_09 = 0;
  parameter [319:0] INITVAL_0A = 0;
  parameter [319:0] INITVAL_0B = 0;
  parameter [319:0] INITVAL_0C = 0;
  parameter [319:0] INITVAL_0D = 0;
  parameter [319:0] INITVAL_0E = 0;
  parameter [319:0] INITVAL_0F = 0;
  parameter [319:0] INITVAL_10 = 0;
  parameter [319:0] INITVAL_11 = 0;
  parameter [319:0] INITVAL_12 = 0;
  parameter [319:0] INITVAL_13 = 0;
  parameter [319:0] INITVAL_14 = 0;
  parameter [319:0] INITVAL_15 = 0;
  parameter [319:0] INITVAL_16 = 0;
  parameter [319:0] INITVAL_17 = 0;
  parameter [319:0] INITVAL_18 = 0;
  parameter [319:0] INITVAL_19 = 0;
  parameter [319:0] INITVAL_1A = 0;
  parameter [319:0] INITVAL_1B = 0;
  parameter [319:0] INITVAL_1C = 0;
  parameter [319:0] INITVAL_1D = 0;
  parameter [319:0] INITVAL_1E = 0;
  parameter [319:0] INITVAL_1F = 0;
  parameter [319:0] INITVAL_20 = 0;
  parameter [319:0] INITVAL_21 = 0;
  parameter [319:0] INITVAL_22 = 0;
  parameter [319:0] INITVAL_23 = 0;
  parameter [319:0] INITVAL_24 = 0;
  parameter [319:0] INITVAL_25 = 0;
  parameter [319:0] INITVAL_26 = 0;
  parameter [319:0] INITVAL_27 = 0;
  parameter [319:0] INITVAL_28 = 0;
  parameter [319:0] INITVAL_29 = 0;
  parameter [319:0] INITVAL_2A = 0;
  parameter [319:0] INITVAL_2B = 0;
  parameter [319:0] INITVAL_2C = 0;
  parameter [319:0] INITVAL_2D = 0;
  parameter [319:0] INITVAL_2E = 0;
  parameter [319:0] INITVAL_2F = 0;
  parameter [319:0] INITVAL_30 = 0;
  parameter [319:0] INITVAL_31 = 0;
  parameter [319:0] INITVAL_32 = 0;
  parameter [319:0] INITVAL_33 = 0;
  parameter [319:0] INITVAL_34 = 0;
  parameter [319:0] INITVAL_35 = 0;
  parameter [319:0] INITVAL_36 = 0;
  parameter [319:0] INITVAL_37 = 0;
  parameter [319:0] INITVAL_38 = 0;
  parameter [319:0] INITVAL_39 = 0;
  parameter [319:0] INITVAL_3A = 0;
  parameter [319:0] INITVAL_3B = 0;
  parameter [319:0] INITVAL_3C = 0;
  parameter [319:0] INITVAL_3D = 0;
  parameter [319:0] INITVAL_3E = 0;
  parameter [319:0] INITVAL_3F = 0;
  localparam [64*320-1:0] INITVALS = {INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A,
      INITVAL_39, INITVAL_38, INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32, INITVAL_31,
      INITVAL_30, INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28,
      INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24, INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20, INITVAL_1F,
      INITVAL_1E, INITVAL_1D, INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16,
      INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10, INITVAL_0F, INITVAL_0E, INITVAL_0D,
      INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08, INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04,
      INITVAL_03, INITVAL_02, INITVAL_01, INITVAL_00};

  wire [17:0] dib = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4,
      DIB3, DIB2, DIB1, DIB0};
  wire [35:0] dia = {dib, DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
      DIA4, DIA3, DIA2, DIA1, DIA0};
  wire [13:0] ada = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
  wire [13:0] adb = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
  reg [8:0] bytes[0:2047];
  reg [35:0] qa, qb;
  integer i, k;

  initial begin
    if (REGMODE_A != "NOREG" || REGMODE_B != "NOREG" || CLKAMUX != "CLKA" || CLKBMUX != "CLKB"
        || CSDECODE_A != "0b000" || CSDECODE_B != "0b000" || DATA_WIDTH_B == 36 && DATA_WIDTH_A != 36) begin
      $display("DP16KD: a mode without a model");
      $finish;
    end
    for (i = 0; i < 2048; i = i + 1) bytes[i] = INITVALS[(i/2)*20+(i%2)*9+:9];
    qa = 0;
    qb = 0;
  end

  // The first byte of a port's word, and which of the four from there on are the port's, or are written.
  wire [10:0] firsta = DATA_WIDTH_A == 36 ? {ada[13:5], 2'b0} : DATA_WIDTH_A == 18 ? {ada[13:4], 1'b0} : ada[13:3];
  wire [10:0] firstb = DATA_WIDTH_B == 36 ? {adb[13:5], 2'b0} : DATA_WIDTH_B == 18 ? {adb[13:4], 1'b0} : adb[13:3];
  wire writea = CEA & WEA & ~CSA0 & ~CSA1 & ~CSA2;
  wire writeb = CEB & WEB & ~CSB0 & ~CSB1 & ~CSB2;
  wire [3:0] maska = ~{4{writea}} ? 4'b0 : DATA_WIDTH_A == 36 ? ada[3:0] : DATA_WIDTH_A == 18 ? {2'b0, ada[1:0]} : 4'b1;
  wire [3:0] maskb = ~{4{writeb}} ? 4'b0 : DATA_WIDTH_B == 18 ? {2'b0, adb[1:0]} : 4'b1;

  // A byte with the port's narrow word in it, and that word taken out of a byte.
  function [8:0] put(input [8:0] old, input [35:0] data, input [2:0] low, input integer width);
    begin
      put = old;
      case (width)
        1: put[low] = data[0];
        2: put[{low[2:1], 1'b0}+:2] = data[1:0];
        4: put[{low[2], 2'b0}+:4] = data[3:0];
        default: put = data[8:0];
      endcase
    end
  endfunction

  function [35:0] take(input [35:0] word, input [2:0] low, input integer width);
    case (width)
      1: take = {35'b0, word[low]};
      2: take = {34'b0, word[{low[2:1], 1'b0}+:2]};
      4: take = {32'b0, word[{low[2], 2'b0}+:4]};
      9: take = {27'b0, word[8:0]};
      18: take = {18'b0, word[17:0]};
      default: take = word;
    endcase
  endfunction

  // The word of a port as it was, complemented where the other port writes.
  function [35:0] old(input [10:0] first, input [10:0] other, input [3:0] mask);
    reg [10:0] away;
    for (k = 0; k < 4; k = k + 1) begin
      away = first + k[10:0] - other;
      old[9*k+:9] = away < 4 && mask[away[1:0]] ? ~bytes[first+k[10:0]] : bytes[first+k[10:0]];
    end
  endfunction

  always @(posedge CLKA) begin
    if (RESETMODE != "SYNC" && (RSTA || RSTB)) begin
      $display("DP16KD: asynchronous resets have no model");
      $finish;
    end
    if (RSTA) qa <= 0;
    else if (CEA && (!WEA || WRITEMODE_A == "READBEFOREWRITE")) qa <= take(old(firsta, firstb, maskb), ada[2:0],
        DATA_WIDTH_A);
    else if (CEA && WRITEMODE_A == "WRITETHROUGH") qa <= dia;
    for (i = 0; i < 4; i = i + 1)
      if (maska[i])
        bytes[firsta+i[10:0]] <= DATA_WIDTH_A < 9 ? put(bytes[firsta], dia, ada[2:0], DATA_WIDTH_A) : dia[9*i+:9];
  end

  always @(posedge CLKB) begin
    if (RSTB) qb <= 0;
    else if (CEB && (!WEB || WRITEMODE_B == "READBEFOREWRITE")) qb <= take(old(firstb, firsta, maska), adb[2:0],
        DATA_WIDTH_B);
    else if (CEB && WRITEMODE_B == "WRITETHROUGH") qb <= {18'b0, dib};
    for (i = 0; i < 2; i = i + 1)
      if (maskb[i])
        bytes[firstb+i[10:0]] <= DATA_WIDTH_B < 9 ? put(bytes[firstb], {18'b0, dib}, adb[2:0], DATA_WIDTH_B) :
            dib[9*i+:9];
  end

  assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2,
      DOA1, DOA0} = DATA_WIDTH_B == 36 ? qb[17:0] : qa[17:0];
  assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2,
      DOB1, DOB0} = DATA_WIDTH_B == 36 ? qb[35:18] : qb[17:0];
endmodule

// Multiplier of 18 x 18 bits: each factor is signed where its SIGNED input is high. Factors, or the product, are
// registered where their REG_..._CLK names CLK0.
module MULT18X18D (
    input CLK0, CE0, RST0, SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    input C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
    output P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16,
    P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
  parameter REG_INPUTA_CLK = "NONE";
  parameter REG_INPUTB_CLK = "NONE";
  parameter REG_OUTPUT_CLK = "NONE";
  wire signed [18:0] a = {SIGNEDA & A17, A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1,
      A0};
  wire signed [18:0] b = {SIGNEDB & B17, B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1,
      B0};
  reg signed [18:0] held_a, held_b;
  reg signed [37:0] held_product;
  wire signed [37:0] result = (REG_INPUTA_CLK == "CLK0" ? held_a : a) * (REG_INPUTB_CLK == "CLK0" ? held_b : b);
  wire signed [37:0] product = REG_OUTPUT_CLK == "CLK0" ? held_product : result;

  initial begin
    held_a = 0;
    held_b = 0;
    held_product = 0;
  end
  always @(posedge CLK0)
    if (CE0) begin
      held_a <= RST0 ? 0 : a;
      held_b <= RST0 ? 0 : b;
      held_product <= RST0 ? 0 : result;
    end
  assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15,
      P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} = product[35:0];
endmodule
