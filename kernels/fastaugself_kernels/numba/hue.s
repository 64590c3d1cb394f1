	.file	"<string>"
	.section	.rodata.cst4,"aM",@progbits,4
	.p2align	2, 0x0
.LCPI0_0:
	.long	0x40c00000
.LCPI0_1:
	.long	0x40800000
.LCPI0_2:
	.long	0x40000000
.LCPI0_3:
	.long	0x2b8cbccc
.LCPI0_4:
	.long	0x3e2aaaab
.LCPI0_5:
	.long	0xc0c00000
.LCPI0_6:
	.long	0xc0400000
.LCPI0_7:
	.long	0x7fffffff
.LCPI0_8:
	.long	0xbf800000
.LCPI0_9:
	.long	0x3f800000
.LCPI0_10:
	.long	0xc0000000
.LCPI0_11:
	.long	0xc0800000
	.section	.ltext,"axl",@progbits
	.globl	_ZN19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf
	.p2align	4
	.type	_ZN19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf,@function
_ZN19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf:
	.cfi_startproc
	testq	%r8, %r8
	jle	.LBB0_17
	pushq	%rbp
	.cfi_def_cfa_offset 16
	pushq	%r15
	.cfi_def_cfa_offset 24
	pushq	%r14
	.cfi_def_cfa_offset 32
	pushq	%r13
	.cfi_def_cfa_offset 40
	pushq	%r12
	.cfi_def_cfa_offset 48
	pushq	%rbx
	.cfi_def_cfa_offset 56
	.cfi_offset %rbx, -56
	.cfi_offset %r12, -48
	.cfi_offset %r13, -40
	.cfi_offset %r14, -32
	.cfi_offset %r15, -24
	.cfi_offset %rbp, -16
	movq	168(%rsp), %rax
	movq	112(%rsp), %rcx
	movq	56(%rsp), %rdx
	movabsq	$.LCPI0_0, %rsi
	vmulss	(%rsi), %xmm0, %xmm0
	movabsq	$.LCPI0_1, %rsi
	vaddss	(%rsi), %xmm0, %xmm23
	movabsq	$.LCPI0_2, %r9
	vaddss	(%r9), %xmm0, %xmm24
	movabsq	$.LCPI0_3, %r15
	movabsq	$.LCPI0_4, %r12
	movabsq	$.LCPI0_5, %r13
	movabsq	$.LCPI0_6, %rbp
	movabsq	$.LCPI0_7, %r11
	movabsq	$.LCPI0_9, %rbx
	movabsq	$.LCPI0_10, %r14
	movabsq	$.LCPI0_11, %r10
	cmpq	$8, %r8
	jae	.LBB0_3
	xorl	%esi, %esi
.LBB0_10:
	vmovss	(%r15), %xmm3
	vmovss	(%r12), %xmm4
	vmovss	(%r13), %xmm5
	vmovss	(%rbp), %xmm6
	vbroadcastss	(%r11), %xmm7
	movabsq	$.LCPI0_8, %r11
	vmovss	(%r11), %xmm8
	vxorps	%xmm9, %xmm9, %xmm9
	vmovss	(%rbx), %xmm10
	vmovss	(%r14), %xmm11
	vmovss	(%r9), %xmm12
	vmovss	(%r10), %xmm13
	jmp	.LBB0_11
	.p2align	4
.LBB0_14:
	vsubss	%xmm16, %xmm15, %xmm18
	vmovaps	%xmm0, %xmm19
.LBB0_15:
	vminss	%xmm15, %xmm16, %xmm1
	vminss	%xmm14, %xmm1, %xmm1
	vsubss	%xmm1, %xmm17, %xmm2
	vmaxss	%xmm2, %xmm3, %xmm14
	vdivss	%xmm14, %xmm18, %xmm14
	vaddss	%xmm19, %xmm14, %xmm14
	vmulss	%xmm4, %xmm14, %xmm15
	vroundss	$9, %xmm15, %xmm15, %xmm15
	vfmadd132ss	%xmm5, %xmm14, %xmm15
	vaddss	%xmm6, %xmm15, %xmm14
	vandps	%xmm7, %xmm14, %xmm14
	vaddss	%xmm8, %xmm14, %xmm14
	vmaxss	%xmm14, %xmm9, %xmm14
	vminss	%xmm14, %xmm10, %xmm14
	vfmadd213ss	%xmm1, %xmm2, %xmm14
	vmovss	%xmm14, (%rdx,%rsi,4)
	vaddss	%xmm11, %xmm15, %xmm14
	vandps	%xmm7, %xmm14, %xmm14
	vsubss	%xmm14, %xmm12, %xmm14
	vmaxss	%xmm14, %xmm9, %xmm14
	vminss	%xmm14, %xmm10, %xmm14
	vfmadd213ss	%xmm1, %xmm2, %xmm14
	vmovss	%xmm14, (%rcx,%rsi,4)
	vaddss	%xmm13, %xmm15, %xmm14
	vandps	%xmm7, %xmm14, %xmm14
	vsubss	%xmm14, %xmm12, %xmm14
	vmaxss	%xmm14, %xmm9, %xmm14
	vminss	%xmm14, %xmm10, %xmm14
	vfmadd213ss	%xmm1, %xmm2, %xmm14
	vmovss	%xmm14, (%rax,%rsi,4)
	incq	%rsi
	cmpq	%rsi, %r8
	je	.LBB0_16
.LBB0_11:
	vmovss	(%rdx,%rsi,4), %xmm14
	vmovss	(%rcx,%rsi,4), %xmm15
	vmovss	(%rax,%rsi,4), %xmm16
	vmaxss	%xmm15, %xmm16, %xmm1
	vmaxss	%xmm14, %xmm1, %xmm17
	vucomiss	%xmm14, %xmm17
	je	.LBB0_14
	vucomiss	%xmm15, %xmm17
	jne	.LBB0_18
	vsubss	%xmm14, %xmm16, %xmm18
	vmovaps	%xmm24, %xmm19
	jmp	.LBB0_15
.LBB0_18:
	vsubss	%xmm15, %xmm14, %xmm18
	vmovaps	%xmm23, %xmm19
	jmp	.LBB0_15
.LBB0_3:
	movq	%rdi, -8(%rsp)
	movq	%r14, %r9
	movq	%rbx, %r13
	movq	%r10, %r12
	leaq	(%rdx,%r8,4), %rsi
	leaq	(%rcx,%r8,4), %rbp
	leaq	(%rax,%r8,4), %rbx
	cmpq	%rbp, %rdx
	setb	%r14b
	cmpq	%rsi, %rcx
	setb	%r15b
	cmpq	%rbx, %rdx
	setb	%r11b
	cmpq	%rsi, %rax
	setb	%r10b
	cmpq	%rbx, %rcx
	setb	%bl
	cmpq	%rbp, %rax
	setb	%bpl
	xorl	%esi, %esi
	testb	%r15b, %r14b
	jne	.LBB0_4
	andb	%r10b, %r11b
	jne	.LBB0_4
	andb	%bpl, %bl
	movq	%r12, %r10
	movq	%r13, %rbx
	movq	%r9, %r14
	movabsq	$.LCPI0_2, %r9
	movabsq	$.LCPI0_3, %r15
	movabsq	$.LCPI0_4, %r12
	movabsq	$.LCPI0_5, %r13
	movabsq	$.LCPI0_6, %rbp
	movabsq	$.LCPI0_7, %r11
	movq	-8(%rsp), %rdi
	jne	.LBB0_10
	movabsq	$9223372036854775800, %rsi
	andq	%r8, %rsi
	vbroadcastss	%xmm23, %ymm3
	vbroadcastss	%xmm24, %ymm4
	vbroadcastss	%xmm0, %ymm5
	vbroadcastss	(%r15), %ymm6
	vbroadcastss	(%r12), %ymm7
	vbroadcastss	(%r13), %ymm8
	vbroadcastss	(%rbp), %ymm9
	vbroadcastss	(%r11), %ymm10
	xorl	%r11d, %r11d
	movq	%r10, %rdi
	movabsq	$.LCPI0_8, %r10
	vbroadcastss	(%r10), %ymm11
	movq	%rdi, %r10
	vxorps	%xmm12, %xmm12, %xmm12
	vbroadcastss	(%rbx), %ymm13
	vbroadcastss	(%r14), %ymm14
	vbroadcastss	(%r9), %ymm15
	vbroadcastss	(%rdi), %ymm16
	.p2align	4
.LBB0_8:
	vmovups	(%rdx,%r11,4), %ymm17
	vmovups	(%rcx,%r11,4), %ymm18
	vmovups	(%rax,%r11,4), %ymm19
	vmaxps	%ymm18, %ymm19, %ymm20
	vmaxps	%ymm17, %ymm20, %ymm20
	vminps	%ymm18, %ymm19, %ymm21
	vminps	%ymm17, %ymm21, %ymm21
	vsubps	%ymm21, %ymm20, %ymm22
	vcmpneqps	%ymm17, %ymm20, %k0
	vcmpeqps	%ymm18, %ymm20, %k1
	kandnb	%k0, %k1, %k2
	kandb	%k1, %k0, %k1
	vsubps	%ymm19, %ymm18, %ymm20
	vsubps	%ymm17, %ymm19, %ymm20 {%k1}
	vsubps	%ymm18, %ymm17, %ymm20 {%k2}
	vblendmps	%ymm4, %ymm5, %ymm17 {%k1}
	vmovaps	%ymm3, %ymm17 {%k2}
	vmaxps	%ymm22, %ymm6, %ymm1
	vrcpps	%ymm1, %ymm2
	vmulps	%ymm2, %ymm20, %ymm18
	vfmsub231ps	%ymm1, %ymm18, %ymm20
	vfnmadd213ps	%ymm18, %ymm2, %ymm20
	vaddps	%ymm17, %ymm20, %ymm1
	vmulps	%ymm7, %ymm1, %ymm2
	vroundps	$9, %ymm2, %ymm2
	vfmadd132ps	%ymm8, %ymm1, %ymm2
	vaddps	%ymm2, %ymm9, %ymm1
	vandps	%ymm1, %ymm10, %ymm1
	vaddps	%ymm1, %ymm11, %ymm1
	vmaxps	%ymm1, %ymm12, %ymm1
	vminps	%ymm1, %ymm13, %ymm1
	vfmadd213ps	%ymm21, %ymm22, %ymm1
	vmovups	%ymm1, (%rdx,%r11,4)
	vaddps	%ymm2, %ymm14, %ymm1
	vandps	%ymm1, %ymm10, %ymm1
	vsubps	%ymm1, %ymm15, %ymm1
	vmaxps	%ymm1, %ymm12, %ymm1
	vminps	%ymm1, %ymm13, %ymm1
	vfmadd213ps	%ymm21, %ymm22, %ymm1
	vmovups	%ymm1, (%rcx,%r11,4)
	vaddps	%ymm16, %ymm2, %ymm1
	vandps	%ymm1, %ymm10, %ymm1
	vsubps	%ymm1, %ymm15, %ymm1
	vmaxps	%ymm1, %ymm12, %ymm1
	vminps	%ymm1, %ymm13, %ymm1
	vfmadd213ps	%ymm21, %ymm22, %ymm1
	vmovups	%ymm1, (%rax,%r11,4)
	addq	$8, %r11
	cmpq	%r11, %rsi
	jne	.LBB0_8
	cmpq	%rsi, %r8
	movabsq	$.LCPI0_7, %r11
	movq	-8(%rsp), %rdi
	jne	.LBB0_10
.LBB0_16:
	popq	%rbx
	.cfi_def_cfa_offset 48
	popq	%r12
	.cfi_def_cfa_offset 40
	popq	%r13
	.cfi_def_cfa_offset 32
	popq	%r14
	.cfi_def_cfa_offset 24
	popq	%r15
	.cfi_def_cfa_offset 16
	popq	%rbp
	.cfi_def_cfa_offset 8
	.cfi_restore %rbx
	.cfi_restore %r12
	.cfi_restore %r13
	.cfi_restore %r14
	.cfi_restore %r15
	.cfi_restore %rbp
.LBB0_17:
	movq	$0, (%rdi)
	xorl	%eax, %eax
	vzeroupper
	retq
.LBB0_4:
	.cfi_def_cfa_offset 56
	.cfi_offset %rbx, -56
	.cfi_offset %rbp, -16
	.cfi_offset %r12, -48
	.cfi_offset %r13, -40
	.cfi_offset %r14, -32
	.cfi_offset %r15, -24
	movq	%r12, %r10
	movq	%r13, %rbx
	movq	%r9, %r14
	movabsq	$.LCPI0_2, %r9
	movabsq	$.LCPI0_3, %r15
	movabsq	$.LCPI0_4, %r12
	movabsq	$.LCPI0_5, %r13
	movabsq	$.LCPI0_6, %rbp
	movabsq	$.LCPI0_7, %r11
	movq	-8(%rsp), %rdi
	jmp	.LBB0_10
.Lfunc_end0:
	.size	_ZN19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf, .Lfunc_end0-_ZN19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf
	.cfi_endproc

	.globl	_ZN7cpython19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf
	.p2align	4
	.type	_ZN7cpython19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf,@function
_ZN7cpython19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf:
	.cfi_startproc
	pushq	%rbp
	.cfi_def_cfa_offset 16
	pushq	%r15
	.cfi_def_cfa_offset 24
	pushq	%r14
	.cfi_def_cfa_offset 32
	pushq	%r13
	.cfi_def_cfa_offset 40
	pushq	%r12
	.cfi_def_cfa_offset 48
	pushq	%rbx
	.cfi_def_cfa_offset 56
	subq	$376, %rsp
	.cfi_def_cfa_offset 432
	.cfi_offset %rbx, -56
	.cfi_offset %r12, -48
	.cfi_offset %r13, -40
	.cfi_offset %r14, -32
	.cfi_offset %r15, -24
	.cfi_offset %rbp, -16
	movq	%rsi, %rdi
	leaq	160(%rsp), %rax
	movq	%rax, 8(%rsp)
	leaq	168(%rsp), %rax
	movq	%rax, (%rsp)
	movabsq	$.const.hue, %rsi
	movabsq	$PyArg_UnpackTuple, %r10
	xorl	%ebx, %ebx
	leaq	184(%rsp), %r8
	leaq	176(%rsp), %r9
	movl	$4, %edx
	movl	$4, %ecx
	xorl	%eax, %eax
	callq	*%r10
	testl	%eax, %eax
	je	.LBB1_11
	movabsq	$_ZN08NumbaEnv19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf, %rax
	cmpq	$0, (%rax)
	je	.LBB1_16
	movq	184(%rsp), %rdi
	vxorps	%xmm0, %xmm0, %xmm0
	vmovups	%ymm0, 192(%rsp)
	vmovups	%ymm0, 216(%rsp)
	movabsq	$NRT_adapt_ndarray_from_python, %r12
	leaq	192(%rsp), %rsi
	vzeroupper
	callq	*%r12
	testl	%eax, %eax
	jne	.LBB1_17
	cmpq	$4, 216(%rsp)
	jne	.LBB1_17
	movq	192(%rsp), %rbx
	movq	208(%rsp), %r13
	movq	224(%rsp), %rbp
	movq	176(%rsp), %rdi
	vxorps	%xmm0, %xmm0, %xmm0
	vmovups	%ymm0, 320(%rsp)
	vmovups	%ymm0, 344(%rsp)
	leaq	320(%rsp), %rsi
	vzeroupper
	callq	*%r12
	testl	%eax, %eax
	jne	.LBB1_18
	cmpq	$4, 344(%rsp)
	jne	.LBB1_18
	movq	320(%rsp), %r15
	movq	352(%rsp), %r14
	movq	168(%rsp), %rdi
	vxorps	%xmm0, %xmm0, %xmm0
	vmovups	%ymm0, 256(%rsp)
	vmovups	%ymm0, 280(%rsp)
	leaq	256(%rsp), %rsi
	vzeroupper
	callq	*%r12
	testl	%eax, %eax
	jne	.LBB1_19
	cmpq	$4, 280(%rsp)
	jne	.LBB1_19
	movq	%r13, 152(%rsp)
	movq	%rbx, 144(%rsp)
	movq	256(%rsp), %r12
	movq	288(%rsp), %rbx
	movq	160(%rsp), %rdi
	movabsq	$PyNumber_Float, %rax
	callq	*%rax
	movq	%rax, %r13
	movabsq	$PyFloat_AsDouble, %rax
	movq	%r13, %rdi
	callq	*%rax
	vmovsd	%xmm0, 136(%rsp)
	movabsq	$Py_DecRef, %rax
	movq	%r13, %rdi
	callq	*%rax
	movabsq	$PyErr_Occurred, %rax
	callq	*%rax
	testq	%rax, %rax
	jne	.LBB1_20
	vmovsd	136(%rsp), %xmm0
	vcvtsd2ss	%xmm0, %xmm0, %xmm0
	vmovss	%xmm0, 136(%rsp)
	movabsq	$PyEval_SaveThread, %rax
	callq	*%rax
	movq	%rax, %r13
	movq	%rbx, 112(%rsp)
	movq	%r12, 80(%rsp)
	movq	%r14, 56(%rsp)
	movq	%r15, %r14
	movq	%r15, 24(%rsp)
	movq	%rbp, (%rsp)
	movabsq	$_ZN19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf, %rax
	leaq	248(%rsp), %rdi
	movq	144(%rsp), %r15
	movq	%r15, %rdx
	movq	152(%rsp), %r8
	vmovss	136(%rsp), %xmm0
	callq	*%rax
	movl	%eax, %ebp
	movabsq	$PyEval_RestoreThread, %rax
	movq	%r13, %rdi
	callq	*%rax
	movabsq	$NRT_decref, %rbx
	movq	%r15, %rdi
	callq	*%rbx
	movq	%r14, %rdi
	callq	*%rbx
	movq	%r12, %rdi
	callq	*%rbx
	testl	%ebp, %ebp
	jne	.LBB1_12
	movabsq	$_Py_NoneStruct, %rbx
	movabsq	$Py_IncRef, %rax
	movq	%rbx, %rdi
	callq	*%rax
.LBB1_11:
	movq	%rbx, %rax
	addq	$376, %rsp
	.cfi_def_cfa_offset 56
	popq	%rbx
	.cfi_def_cfa_offset 48
	popq	%r12
	.cfi_def_cfa_offset 40
	popq	%r13
	.cfi_def_cfa_offset 32
	popq	%r14
	.cfi_def_cfa_offset 24
	popq	%r15
	.cfi_def_cfa_offset 16
	popq	%rbp
	.cfi_def_cfa_offset 8
	retq
.LBB1_12:
	.cfi_def_cfa_offset 432
	jg	.LBB1_27
	cmpl	$-1, %ebp
	je	.LBB1_24
	cmpl	$-3, %ebp
	jne	.LBB1_25
	movabsq	$PyExc_StopIteration, %rdi
	movabsq	$PyErr_SetNone, %rax
	jmp	.LBB1_23
.LBB1_16:
	movabsq	$PyExc_RuntimeError, %rdi
	movabsq	$".const.missing Environment: _ZN08NumbaEnv19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf", %rsi
	jmp	.LBB1_26
.LBB1_17:
	movabsq	$PyExc_TypeError, %rdi
	movabsq	$".const.can't unbox array from PyObject into native value.  The object maybe of a different type", %rsi
	jmp	.LBB1_26
.LBB1_18:
	movabsq	$PyExc_TypeError, %rdi
	movabsq	$".const.can't unbox array from PyObject into native value.  The object maybe of a different type", %rsi
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
	jmp	.LBB1_22
.LBB1_19:
	movabsq	$PyExc_TypeError, %rdi
	movabsq	$".const.can't unbox array from PyObject into native value.  The object maybe of a different type", %rsi
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
	jmp	.LBB1_21
.LBB1_20:
	movabsq	$NRT_decref, %rax
	movq	%r12, %rdi
	callq	*%rax
	movq	144(%rsp), %rbx
.LBB1_21:
	movabsq	$NRT_decref, %rax
	movq	%r15, %rdi
	callq	*%rax
.LBB1_22:
	movabsq	$NRT_decref, %rax
	movq	%rbx, %rdi
.LBB1_23:
	callq	*%rax
.LBB1_24:
	xorl	%ebx, %ebx
	jmp	.LBB1_11
.LBB1_25:
	movabsq	$PyExc_SystemError, %rdi
	movabsq	$".const.unknown error when calling native function", %rsi
.LBB1_26:
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
	xorl	%ebx, %ebx
	jmp	.LBB1_11
.LBB1_27:
	movabsq	$PyErr_Clear, %rax
	callq	*%rax
.Lfunc_end1:
	.size	_ZN7cpython19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf, .Lfunc_end1-_ZN7cpython19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf
	.cfi_endproc

	.globl	cfunc._ZN19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf
	.p2align	4
	.type	cfunc._ZN19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf,@function
cfunc._ZN19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf:
	.cfi_startproc
	pushq	%r14
	.cfi_def_cfa_offset 16
	pushq	%rbx
	.cfi_def_cfa_offset 24
	subq	$152, %rsp
	.cfi_def_cfa_offset 176
	.cfi_offset %rbx, -24
	.cfi_offset %r14, -16
	movq	%rdx, %rax
	movq	%rdi, %rdx
	movq	184(%rsp), %rcx
	movq	216(%rsp), %rsi
	movq	240(%rsp), %rdi
	movq	272(%rsp), %r9
	movq	$0, 144(%rsp)
	movq	%r9, 112(%rsp)
	movq	%rdi, 80(%rsp)
	movq	%rsi, 56(%rsp)
	movq	%rcx, 24(%rsp)
	movq	%r8, (%rsp)
	movabsq	$_ZN19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf, %rcx
	leaq	144(%rsp), %rdi
	movq	%rax, %r8
	callq	*%rcx
	movq	144(%rsp), %rcx
	movl	$0, 140(%rsp)
	testl	%eax, %eax
	jne	.LBB2_1
.LBB2_5:
	movq	%rcx, %rax
	addq	$152, %rsp
	.cfi_def_cfa_offset 24
	popq	%rbx
	.cfi_def_cfa_offset 16
	popq	%r14
	.cfi_def_cfa_offset 8
	retq
.LBB2_1:
	.cfi_def_cfa_offset 176
	movq	%rcx, %r14
	movabsq	$numba_gil_ensure, %rcx
	leaq	140(%rsp), %rdi
	movl	%eax, %ebx
	callq	*%rcx
	testl	%ebx, %ebx
	jg	.LBB2_2
	movl	%ebx, %eax
	cmpl	$-1, %ebx
	je	.LBB2_4
	cmpl	$-3, %eax
	jne	.LBB2_3
	movabsq	$PyExc_StopIteration, %rdi
	movabsq	$PyErr_SetNone, %rax
	callq	*%rax
	jmp	.LBB2_4
.LBB2_3:
	movabsq	$PyExc_SystemError, %rdi
	movabsq	$".const.unknown error when calling native function.2", %rsi
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
.LBB2_4:
	movabsq	$".const.<numba.core.cpu.CPUContext>", %rdi
	movabsq	$PyUnicode_FromString, %rax
	callq	*%rax
	movq	%rax, %rbx
	movabsq	$PyErr_WriteUnraisable, %rax
	movq	%rbx, %rdi
	callq	*%rax
	movabsq	$Py_DecRef, %rax
	movq	%rbx, %rdi
	callq	*%rax
	movabsq	$numba_gil_release, %rax
	leaq	140(%rsp), %rdi
	callq	*%rax
	movq	%r14, %rcx
	jmp	.LBB2_5
.LBB2_2:
	movabsq	$PyErr_Clear, %rax
	callq	*%rax
.Lfunc_end2:
	.size	cfunc._ZN19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf, .Lfunc_end2-cfunc._ZN19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf
	.cfi_endproc

	.weak	NRT_incref
	.p2align	4
	.type	NRT_incref,@function
NRT_incref:
	testq	%rdi, %rdi
	je	.LBB3_2
	lock		incq	(%rdi)
.LBB3_2:
	retq
.Lfunc_end3:
	.size	NRT_incref, .Lfunc_end3-NRT_incref

	.weak	NRT_decref
	.p2align	4
	.type	NRT_decref,@function
NRT_decref:
	.cfi_startproc
	testq	%rdi, %rdi
	je	.LBB4_2
	#MEMBARRIER
	lock		decq	(%rdi)
	je	.LBB4_3
.LBB4_2:
	retq
.LBB4_3:
	#MEMBARRIER
	movabsq	$NRT_MemInfo_call_dtor, %rax
	jmpq	*%rax
.Lfunc_end4:
	.size	NRT_decref, .Lfunc_end4-NRT_decref
	.cfi_endproc

	.type	.const.hue,@object
	.section	.lrodata,"al",@progbits
.const.hue:
	.asciz	"hue"
	.size	.const.hue, 4

	.type	_ZN08NumbaEnv19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf,@object
	.comm	_ZN08NumbaEnv19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf,8,8
	.type	".const.missing Environment: _ZN08NumbaEnv19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf",@object
	.p2align	4, 0x0
".const.missing Environment: _ZN08NumbaEnv19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf":
	.asciz	"missing Environment: _ZN08NumbaEnv19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf"
	.size	".const.missing Environment: _ZN08NumbaEnv19fastaugself_kernels5numba5color3hueB2v7B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf", 250

	.type	".const.can't unbox array from PyObject into native value.  The object maybe of a different type",@object
	.p2align	4, 0x0
".const.can't unbox array from PyObject into native value.  The object maybe of a different type":
	.asciz	"can't unbox array from PyObject into native value.  The object maybe of a different type"
	.size	".const.can't unbox array from PyObject into native value.  The object maybe of a different type", 89

	.type	".const.unknown error when calling native function",@object
	.p2align	4, 0x0
".const.unknown error when calling native function":
	.asciz	"unknown error when calling native function"
	.size	".const.unknown error when calling native function", 43

	.type	".const.unknown error when calling native function.2",@object
	.p2align	4, 0x0
".const.unknown error when calling native function.2":
	.asciz	"unknown error when calling native function"
	.size	".const.unknown error when calling native function.2", 43

	.type	".const.<numba.core.cpu.CPUContext>",@object
	.p2align	4, 0x0
".const.<numba.core.cpu.CPUContext>":
	.asciz	"<numba.core.cpu.CPUContext>"
	.size	".const.<numba.core.cpu.CPUContext>", 28

	.type	_ZN08NumbaEnv5numba7cpython8builtins6ol_max12_3clocals_3e4implB2v5B74c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAYkQ91Dxg0IFZmgA_3dE15StarArgUniTupleIfLi2EE,@object
	.comm	_ZN08NumbaEnv5numba7cpython8builtins6ol_max12_3clocals_3e4implB2v5B74c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAYkQ91Dxg0IFZmgA_3dE15StarArgUniTupleIfLi2EE,8,8
	.type	_ZN08NumbaEnv5numba7cpython8builtins6ol_min12_3clocals_3e4implB2v3B74c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAYkQ91Dxg0IFZmgA_3dE15StarArgUniTupleIfLi2EE,@object
	.comm	_ZN08NumbaEnv5numba7cpython8builtins6ol_min12_3clocals_3e4implB2v3B74c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAYkQ91Dxg0IFZmgA_3dE15StarArgUniTupleIfLi2EE,8,8
	.section	".note.GNU-stack","",@progbits
