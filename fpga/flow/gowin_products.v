// Signed products of up to 12 x 12 bits in the multipliers of a GW5A, for which yosys has no map. Wider ones stay LUTs and
// ALUs: nextpnr 0.11.1 does not route a MULT27X36.
(* techmap_celltype = "$mul" *)
module gowin_product (A, B, Y);
  parameter A_SIGNED = 1, B_SIGNED = 1, A_WIDTH = 8, B_WIDTH = 8, Y_WIDTH = 16;
  input signed [A_WIDTH-1:0] A;
  input signed [B_WIDTH-1:0] B;
  output [Y_WIDTH-1:0] Y;

  wire _TECHMAP_FAIL_ = !A_SIGNED || !B_SIGNED || A_WIDTH > 12 || B_WIDTH > 12 || Y_WIDTH > 24;
  wire signed [11:0] a = A, b = B;
  wire [23:0] product;
  MULT12X12 _TECHMAP_REPLACE_ (.A(a), .B(b), .DOUT(product), .CLK(2'b00), .CE(2'b01), .RESET(2'b00));
  assign Y = product[Y_WIDTH-1:0];
endmodule
