// Models of the Gowin cells that are black boxes in yosys' share/gowin, in the modes that fpga/flow/gowin.py makes use of.

// Block RAM of 2,048 bytes of 9 bits, which port A writes and port B reads, each 1, 2 or 4 bytes at a time (widths 9,
// 18, 36). Addresses count bits; at 18 and 36 the lowest ones enable bytes of a write. With READ_MODE a register with
// the enable OCE is behind the word that was read.
//
// A GW2A has a reset for each port, a GW5A one for both.
//
// A byte that is read while it is written is undefined; here it is the complement of what it was, so that a netlist
// which depends on it fails.
module SDPX9B (
    input CLKA, CEA, CLKB, CEB, OCE, RESETA, RESETB, RESET,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input [35:0] DI,
    output [35:0] DO
);
  parameter [0:0] READ_MODE = 0;
  parameter integer BIT_WIDTH_0 = 36;
  parameter integer BIT_WIDTH_1 = 36;
  parameter [2:0] BLK_SEL_0 = 0;
  parameter [2:0] BLK_SEL_1 = 0;
  parameter RESET_MODE = "SYNC";
  parameter [287:0] INIT_RAM_00 = 0;
  parameter [287:0] INIT_RAM_01 = 0;
  parameter [287:0] INIT_RAM_02 = 0;
  parameter [287:0] INIT_RAM_03 = 0;
  parameter [287:0] INIT_RAM_04 = 0;
  parameter [287:0] INIT_RAM_05 = 0;
  parameter [287:0] INIT_RAM_06 = 0;
  parameter [287:0] INIT_RAM_07 = 0;
  parameter [287:0] INIT_RAM_08 = 0;
  parameter [287:0] INIT_RAM_09 = 0;
  parameter [287:0] INIT_RAM_0A = 0;
  parameter [287:0] INIT_RAM_0B = 0;
  parameter [287:0] INIT_RAM_0C = 0;
  parameter [287:0] INIT_RAM_0D = 0;
  parameter [287:0] INIT_RAM_0E = 0;
  parameter [287:0] INIT_RAM_0F = 0;
  parameter [287:0] INIT_RAM_10 = 0;
  parameter [287:0] INIT_RAM_11 = 0;
  parameter [287:0] INIT_RAM_12 = 0;
  parameter [287:0] INIT_RAM_13 = 0;
  parameter [287:0] INIT_RAM_14 = 0;
  parameter [287:0] INIT_RAM_15 = 0;
  parameter [287:0] INIT_RAM_16 = 0;
  parameter [287:0] INIT_RAM_17 = 0;
  parameter [287:0] INIT_RAM_18 = 0;
  parameter [287:0] INIT_RAM_19 = 0;
  parameter [287:0] INIT_RAM_1A = 0;
  parameter [287:0] INIT_RAM_1B = 0;
  parameter [287:0] INIT_RAM_1C = 0;
  parameter [287:0] INIT_RAM_1D = 0;
  parameter [287:0] INIT_RAM_1E = 0;
  parameter [287:0] INIT_RAM_1F = 0;
  parameter [287:0] INIT_RAM_20 = 0;
  parameter [287:0] INIT_RAM_21 = 0;
  parameter [287:0] INIT_RAM_22 = 0;
  parameter [287:0] INIT_RAM_23 = 0;
  parameter [287:0] INIT_RAM_24 = 0;
  parameter [287:0] INIT_RAM_25 = 0;
  parameter [287:0] INIT_RAM_26 = 0;
  parameter [287:0] INIT_RAM_27 = 0;
  parameter [287:0] INIT_RAM_28 = 0;
  parameter [287:0] INIT_RAM_29 = 0;
  parameter [287:0] INIT_RAM_2A = 0;
  parameter [287:0] INIT_RAM_2B = 0;
  parameter [287:0] INIT_RAM_2C = 0;
  parameter [287:0] INIT_RAM_2D = 0;
  parameter [287:0] INIT_RAM_2E = 0;
  parameter [287:0] INIT_RAM_2F = 0;
  parameter [287:0] INIT_RAM_30 = 0;
  parameter [287:0] INIT_RAM_31 = 0;
  parameter [287:0] INIT_RAM_32 = 0;
  parameter [287:0] INIT_RAM_33 = 0;
  parameter [287:0] INIT_RAM_34 = 0;
  parameter [287:0] INIT_RAM_35 = 0;
  parameter [287:0] INIT_RAM_36 = 0;
  parameter [287:0] INIT_RAM_37 = 0;
  parameter [287:0] INIT_RAM_38 = 0;
  parameter [287:0] INIT_RAM_39 = 0;
  parameter [287:0] INIT_RAM_3A = 0;
  parameter [287:0] INIT_RAM_3B = 0;
  parameter [287:0] INIT_RAM_3C = 0;
  parameter [287:0] INIT_RAM_3D = 0;
  parameter [287:0] INIT_RAM_3E = 0;
  parameter [287:0] INIT_RAM_3F = 0;
  localparam [64*288-1:0] INITS = {INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A, INIT_RAM_39,
      INIT_RAM_38, INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, INIT_RAM_33, INIT_RAM_32,
      INIT_RAM_31, INIT_RAM_30, INIT_RAM_2F, INIT_RAM_2E, INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B,
      INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28, INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24,
      INIT_RAM_23, INIT_RAM_22, INIT_RAM_21, INIT_RAM_20, INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D,
      INIT_RAM_1C, INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18, INIT_RAM_17, INIT_RAM_16,
      INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10, INIT_RAM_0F,
      INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A, INIT_RAM_09, INIT_RAM_08,
      INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, INIT_RAM_03, INIT_RAM_02, INIT_RAM_01,
      INIT_RAM_00};

  reg [8:0] bytes[0:2047];
  reg [35:0] word, held;
  integer i, k;

  initial begin
    if (RESET_MODE != "SYNC" || BLK_SEL_0 != 0 || BLK_SEL_1 != 0 || BIT_WIDTH_0 < 9 || BIT_WIDTH_1 < 9) begin
      $display("SDPX9B: a mode without a model");
      $finish;
    end
    for (i = 0; i < 2048; i = i + 1) bytes[i] = INITS[9*i+:9];
    word = 0;
    held = 0;
  end

  // The first byte of a port's word, and which of the four from there on are written or are the port's.
  wire [10:0] firsta = BIT_WIDTH_0 == 36 ? {ADA[13:5], 2'b0} : BIT_WIDTH_0 == 18 ? {ADA[13:4], 1'b0} : ADA[13:3];
  wire [10:0] firstb = BIT_WIDTH_1 == 36 ? {ADB[13:5], 2'b0} : BIT_WIDTH_1 == 18 ? {ADB[13:4], 1'b0} : ADB[13:3];
  wire write = CEA & BLKSELA == 0;
  wire [3:0] mask = ~{4{write}} ? 4'b0 : BIT_WIDTH_0 == 36 ? ADA[3:0] : BIT_WIDTH_0 == 18 ? {2'b0, ADA[1:0]} : 4'b1;
  localparam [35:0] PORT = BIT_WIDTH_1 == 36 ? ~36'b0 : BIT_WIDTH_1 == 18 ? 36'h3ffff : 36'h1ff;

  function [35:0] read(input [10:0] first, input [10:0] other, input [3:0] written);
    reg [10:0] away;
    for (k = 0; k < 4; k = k + 1) begin
      away = first + k[10:0] - other;
      read[9*k+:9] = away < 4 && written[away[1:0]] ? ~bytes[first+k[10:0]] : bytes[first+k[10:0]];
    end
  endfunction

  always @(posedge CLKA)
    for (i = 0; i < 4; i = i + 1) if (mask[i]) bytes[firsta+i[10:0]] <= DI[9*i+:9];

  always @(posedge CLKB) begin
    if (RESETA || RESETB || RESET) begin
      $display("SDPX9B: resets have no model");
      $finish;
    end
    if (OCE) held <= word;
    if (CEB && BLKSELB == 0) word <= read(firstb, firsta, mask) & PORT;
  end

  assign DO = READ_MODE ? held : word;
endmodule

// Multipliers: each factor is signed where its SIGN input is high. Factors, or the product, are registered where their
// parameter says so.
module MULT9X9 (
    input CLK, CE, RESET, ASIGN, BSIGN, ASEL, BSEL,
    input [8:0] A, B, SIA, SIB,
    output [17:0] DOUT
);
  parameter [0:0] AREG = 0;
  parameter [0:0] BREG = 0;
  parameter [0:0] OUT_REG = 0;
  multiplier #(.WIDTH(9), .AREG(AREG), .BREG(BREG), .OUT_REG(OUT_REG)) m (CLK, CE, RESET, ASIGN, BSIGN, A, B, DOUT);
endmodule

module MULT18X18 (
    input CLK, CE, RESET, ASIGN, BSIGN, ASEL, BSEL,
    input [17:0] A, B, SIA, SIB,
    output [35:0] DOUT
);
  parameter [0:0] AREG = 0;
  parameter [0:0] BREG = 0;
  parameter [0:0] OUT_REG = 0;
  multiplier #(.WIDTH(18), .AREG(AREG), .BREG(BREG), .OUT_REG(OUT_REG)) m (CLK, CE, RESET, ASIGN, BSIGN, A, B, DOUT);
endmodule

// The multiplier of a GW5A: signed, and each register is there if its parameter names a clock.
module MULT12X12 (
    input [11:0] A, B,
    input [1:0] CLK, CE, RESET,
    output [23:0] DOUT
);
  parameter AREG_CLK = "BYPASS";
  parameter BREG_CLK = "BYPASS";
  parameter OREG_CLK = "BYPASS";
  multiplier #(
      .WIDTH(12), .AREG(AREG_CLK == "CLK0"), .BREG(BREG_CLK == "CLK0"), .OUT_REG(OREG_CLK == "CLK0")
  ) m (CLK[0], CE[0], RESET[0], 1'b1, 1'b1, A, B, DOUT);
endmodule

module multiplier #(
    parameter WIDTH = 9, parameter [0:0] AREG = 0, parameter [0:0] BREG = 0, parameter [0:0] OUT_REG = 0
) (
    input clk, ce, reset, a_sign, b_sign,
    input [WIDTH-1:0] a, b,
    output [2*WIDTH-1:0] product
);
  wire signed [WIDTH:0] wide_a = {a_sign & a[WIDTH-1], a}, wide_b = {b_sign & b[WIDTH-1], b};
  reg signed [WIDTH:0] held_a, held_b;
  reg signed [2*WIDTH+1:0] held_product;
  wire signed [2*WIDTH+1:0] result = (AREG ? held_a : wide_a) * (BREG ? held_b : wide_b);

  initial begin
    held_a = 0;
    held_b = 0;
    held_product = 0;
  end
  always @(posedge clk)
    if (ce) begin
      held_a <= reset ? 0 : wide_a;
      held_b <= reset ? 0 : wide_b;
      held_product <= reset ? 0 : result;
    end
  assign product = OUT_REG ? held_product[2*WIDTH-1:0] : result[2*WIDTH-1:0];
endmodule
