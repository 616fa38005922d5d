// A signed 8 x 8 product without a multiplier: three levels of carry cells, each half of which adds the ANDs of two pairs
// of bits, so that the partial products take no LUTs of their own. 78 TRELLIS_COMB; yosys alone makes 184.

// Where what the first row adds is inverted, its LUT is ~(a & b) ^ (c & d), else (a & b) ^ (c & d). The carry is a & b, or
// ~(a & b), where both addends are alike.
module lut_product_sum #(parameter WIDTH = 2, INVERT = 0) (
  input [WIDTH-1:0] a, c, input b, d, output [WIDTH-1:0] sum
);
  localparam HALVES = WIDTH + WIDTH % 2, INIT = INVERT ? 16'h8777 : 16'h7888;
  wire [HALVES-1:0] first = a, second = c, sums;
  wire [HALVES/2:0] carry;
  assign carry[0] = INVERT, sum = sums;
  genvar k;
  generate for (k = 0; k < HALVES / 2; k = k + 1) begin
    CCU2C #(.INIT0(INIT), .INIT1(INIT), .INJECT1_0("NO"), .INJECT1_1("NO")) cell_ (
      .CIN(carry[k]), .COUT(carry[k+1]),
      .A0(first[2*k]), .B0(b), .C0(second[2*k]), .D0(d), .S0(sums[2*k]),
      .A1(first[2*k+1]), .B1(b), .C1(second[2*k+1]), .D1(d), .S1(sums[2*k+1]));
  end endgenerate
endmodule

(* techmap_celltype = "$mul" *)
module lut_product (A, B, Y);
  parameter A_SIGNED = 1, B_SIGNED = 1, A_WIDTH = 8, B_WIDTH = 8, Y_WIDTH = 16;
  input [7:0] A, B;
  output [15:0] Y;

  wire _TECHMAP_FAIL_ = !A_SIGNED || !B_SIGNED || A_WIDTH != 8 || B_WIDTH != 8 || Y_WIDTH != 16;
  wire [9:0] two0, two1, two2, two3;  // a times two bits of b each
  wire [11:0] four0, four1;
  `define ROWS(k, inverted, out) \
    assign out[0] = A[0] & B[k]; \
    lut_product_sum #(.WIDTH(9), .INVERT(inverted)) out``_ ( \
      .a({A[7], A}), .b(B[k+1]), .c({{2{A[7]}}, A[7:1]}), .d(B[k]), .sum(out[9:1]));
  `ROWS(0, 0, two0)
  `ROWS(2, 0, two1)
  `ROWS(4, 0, two2)
  `ROWS(6, 1, two3)
  assign four0[1:0] = two0[1:0], four1[1:0] = two2[1:0], Y[3:0] = four0[3:0];
  lut_product_sum #(.WIDTH(10)) four0_ (
    .a(two1), .b(1'b1), .c({{2{two0[9]}}, two0[9:2]}), .d(1'b1), .sum(four0[11:2]));
  lut_product_sum #(.WIDTH(10)) four1_ (
    .a(two3), .b(1'b1), .c({{2{two2[9]}}, two2[9:2]}), .d(1'b1), .sum(four1[11:2]));
  lut_product_sum #(.WIDTH(12)) product_ (
    .a(four1), .b(1'b1), .c({{4{four0[11]}}, four0[11:4]}), .d(1'b1), .sum(Y[15:4]));
endmodule
